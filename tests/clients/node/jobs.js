// The roles `work` and `enqueue` of tests/clients/test_job_queues.py, played by bullmq.

import { Queue, Worker } from 'bullmq';

import { main, say, told } from './stage.js';

const settings = (port) => ({
  connection: { port, host: '127.0.0.1', username: 'app', password: 'secret', maxRetriesPerRequest: null },
});

async function work(port, name) {
  const worker = new Worker(name, async (job) => say(`message ${job.data.number}`), settings(port));
  worker.on('error', (error) => console.error(error));
  await new Promise(() => {});
}

async function enqueue(port, name) {
  const queue = new Queue(name, settings(port));
  const acknowledged = [];
  const errors = [];
  const oneMore = async () => {
    const number = acknowledged.length + errors.length;
    try {
      await queue.add('job', { number });
      acknowledged.push(number);
    } catch (error) {
      errors.push(error.message);
    }
  };
  for (let count = 0; count < 10; count += 1) await oneMore();
  let goingOn = false;
  const word = told().then(() => { goingOn = true; });
  say('ready');
  while (!goingOn) {
    await oneMore();
    await Promise.race([word, new Promise((resolve) => setTimeout(resolve, 5))]);
  }
  for (let count = 0; count < 10; count += 1) await oneMore();
  return { acknowledged, errors };
}

await main({ work, enqueue });
