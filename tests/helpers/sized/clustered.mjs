// A Node server with as many workers as WEB_CONCURRENCY says.
import cluster from "node:cluster";
import { createServer } from "node:http";

const { HOST, PORT, WEB_CONCURRENCY } = process.env;
if (cluster.isPrimary) for (let k = 0; k < Number(WEB_CONCURRENCY); k++) cluster.fork();
else createServer((_, answer) => answer.end("ok")).listen(Number(PORT), HOST);
