// The article's server: Express, with the loop in the request handler. Also a worker of node:cluster and of PM2.
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const express = createRequire(join(process.env.SCALING_LAB_NODE_MODULES, "x.js"))("express");
const iterations = Number(process.env.SCALING_LAB_ITERATIONS ?? 7 ** 7);
const mostTimes = 1000;
const cpu = process.threadCpuUsage ?? process.cpuUsage; // microseconds; older Node only knows those of all threads

function loop() {
  let total = 0;
  for (let i = iterations; i >= 0; i--) total += Math.atan(i) * Math.tan(i);
  return total;
}

const app = express();
app.use((request, response, next) => {
  response.set("X-Worker", String(process.pid));
  next();
});
app.get("/", (request, response) => response.send("Hello World!"));
app.get("/healthz", (request, response) => response.send("ok"));
app.get("/api/slow", (request, response) => {
  const times = String(request.query.times ?? "1");
  if (!/^\d{1,4}$/.test(times) || times < 1 || times > mostTimes)
    return response.status(400).send(`times must be a whole number from 1 to ${mostTimes}`);
  const before = cpu.call(process);
  const begun = performance.now();
  let total = 0;
  for (let i = 0; i < times; i++) total = loop();
  const wall = performance.now() - begun;
  const used = cpu.call(process, before);
  console.log(`${total} ${process.pid}`);
  const spent = (used.user + used.system) / 1000;
  response.set("Server-Timing", `loop;dur=${wall.toFixed(3)}, cpu;dur=${spent.toFixed(3)}`);
  response.send(`Result number is ${total}`);
});

const where = { host: process.env.HOST, port: Number(process.env.PORT), backlog: 4096 };
const server = app.listen(where, (error) => {
  if (error) throw error;
  if (process.env.SCALING_LAB_WORKERS) writeFileSync(join(process.env.SCALING_LAB_WORKERS, String(process.pid)), "");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => server.close(() => process.exit(0)));
