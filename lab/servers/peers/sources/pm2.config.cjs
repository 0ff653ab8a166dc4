// The same server under PM2, in its cluster mode; without its agent, and without a look at version control.
module.exports = {
  apps: [
    {
      name: "article",
      script: `${__dirname}/server.mjs`,
      exec_mode: "cluster",
      instances: Number(process.env.WEB_CONCURRENCY),
      pmx: false,
      vizion: false,
    },
  ],
};
