// The article's clustered server: a primary, and a worker for each CPU. SIGHUP replaces the workers one at a time.
import cluster from "node:cluster";
import { once } from "node:events";

if (cluster.isPrimary) {
  let ending = false;
  const wanted = Number(process.env.WEB_CONCURRENCY);
  for (let i = 0; i < wanted; i++) cluster.fork();
  cluster.on("exit", (worker) => {
    console.log(`worker ${worker.process.pid} has ended`);
    if (!ending && !worker.exitedAfterDisconnect) cluster.fork();
  });
  process.on("SIGHUP", async () => {
    for (const old of Object.values(cluster.workers)) {
      await once(cluster.fork(), "listening");
      old.disconnect();
    }
  });
  for (const signal of ["SIGINT", "SIGTERM"])
    process.on(signal, () => {
      ending = true;
      cluster.disconnect(() => process.exit(0));
    });
} else {
  await import("./server.mjs");
}
