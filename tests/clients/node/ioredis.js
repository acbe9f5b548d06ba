// The roles of tests/clients, played by ioredis.

import { Redis } from 'ioredis';

import { BINARY, COUNT, LARGE, STORE, Tally, main, say, told } from './stage.js';

async function connect(port, settings = {}) {
  const client = new Redis({
    port,
    host: '127.0.0.1',
    username: 'app',
    password: 'secret',
    lazyConnect: true,
    retryStrategy: null,
    ...settings,
  });
  client.on('error', (error) => {
    throw error;
  });
  client.defineCommand('store', { numberOfKeys: 1, lua: STORE });
  client.defineCommand('count', { numberOfKeys: 1, lua: COUNT });
  await client.connect();
  return client;
}

/** The replies of a pipeline or transaction; rejects with the first error among them. */
async function replies(queue) {
  return (await queue.exec()).map(([error, reply]) => {
    if (error) throw error;
    return reply;
  });
}

async function optimistic(watcher, other, key) {
  await watcher.set(key, 1);
  for (let attempt = 1; ; attempt += 1) {
    await watcher.watch(key);
    const value = Number(await watcher.get(key));
    if (attempt === 1) await other.set(key, 10);
    if (await watcher.multi().set(key, value + 1).exec()) return [attempt, await watcher.get(key)];
  }
}

async function features(client, other, elsewhere, name) {
  const odd = Buffer.concat([Buffer.from(`${name}:\0\r\n`), Buffer.from([0xff])]);
  await client.set(`${name}:string`, 'value');
  await client.mset({ [`${name}:one`]: 1, [`${name}:two`]: 2 });
  await client.hset(`${name}:hash`, { field: 1, other: 2 });
  await client.rpush(`${name}:list`, 'a', 'b', 'c');
  await client.set(`${name}:large`, LARGE);
  await client.set(odd, BINARY);
  await elsewhere.set(`${name}:database`, 'three');
  const queue = (commands, key) => commands.incr(key).incrby(key, 5).get(key);
  const identity = await client.client('ID');
  const entry = (await client.client('LIST')).split('\n').filter((line) => line.startsWith(`id=${identity} `));
  return {
    string: await client.get(`${name}:string`),
    many: await client.mget(`${name}:one`, `${name}:two`, `${name}:none`),
    hash: await client.hgetall(`${name}:hash`),
    list: await client.lrange(`${name}:list`, 0, -1),
    pipeline: await replies(queue(client.pipeline(), `${name}:pipe`)),
    transaction: await replies(queue(client.multi(), `${name}:multi`)),
    optimistic: await optimistic(client, other, `${name}:optimistic`),
    eval: await client.eval('return {1, ARGV[1], {2}}', 0, 'x'),
    script: await client.store(`${name}:script`, 'lua'),
    large: (await client.getBuffer(`${name}:large`)).equals(LARGE),
    binary: (await client.getBuffer(odd)).toString('hex'),
    database: [await elsewhere.get(`${name}:database`), await client.get(`${name}:database`)],
    name: await client.client('GETNAME'),
    listed: entry.map((line) => / name=(\S*) /.exec(line)[1]),
    user: await client.acl('WHOAMI'),
  };
}

async function play(port, name) {
  const client = await connect(port, { connectionName: 'player' });
  const other = await connect(port);
  const elsewhere = await connect(port, { db: 3 });
  const before = await features(client, other, elsewhere, `${name}:before`);
  const identity = await client.client('ID');
  await elsewhere.set(`${name}:kept`, 'kept');
  const loaded = await client.script('LOAD', "return 'loaded'");
  await client.publish(name, 'before');
  await other.watch(`${name}:watched`);

  const tally = new Tally();
  const counter = `${name}:counter`;
  await tally.during(async (round) => {
    await client.set(`${name}:round`, round);
    if ((await client.get(`${name}:round`)) !== String(round)) throw new Error('what was written is not there');
    return [
      () => client.incr(counter),
      () => replies(client.pipeline().hset(`${name}:round:hash`, 'field', round).incr(counter)),
      () => replies(client.multi().incr(counter).rpush(`${name}:round:list`, round)),
      () => client.count(counter),
    ];
  });

  const watched = await other.multi().set(`${name}:watched`, 1).exec();
  await client.rpush(`${name}:queue`, 'element');
  await client.publish(name, 'after');
  return {
    before,
    after: await features(client, other, elsewhere, `${name}:after`),
    across: {
      watched,
      'same connection': (await client.client('ID')) === identity,
      database: await elsewhere.get(`${name}:kept`),
      script: await client.evalsha(loaded, 0),
    },
    ...tally.result(),
    counted: Number(await client.get(counter)),
  };
}

async function listen(port, name) {
  const client = await connect(port);
  const messages = [];
  const end = new Promise((resolve) => {
    client.on('message', (_channel, message) => {
      messages.push(message);
      say(`message ${message}`);
      if (message === 'end') resolve();
    });
  });
  await client.subscribe(name);
  await end;
  return { messages };
}

async function pop(port, name) {
  const client = await connect(port);
  say('ready');
  return { popped: await client.blpop(`${name}:queue`, 30) };
}

async function scan(port, name) {
  const client = await connect(port);
  const iterators = {
    keys: client.scanStream({ match: `${name}:scan:*`, count: 10 })[Symbol.asyncIterator](),
    fields: client.hscanStream(`${name}:fields`, { count: 10 })[Symbol.asyncIterator](),
  };
  const found = { keys: new Set(), fields: new Set() };
  const next = async (what) => {
    const { value, done } = await iterators[what].next();
    if (done) return false;
    // The items of a hash are its fields and values in turn.
    for (const item of what === 'keys' ? value : value.filter((_, index) => index % 2 === 0)) found[what].add(item);
    return true;
  };
  for (const what of Object.keys(found)) while (found[what].size < 150) await next(what);
  say('ready');
  await told();
  for (const what of Object.keys(found)) while (await next(what));
  return { keys: found.keys.size, fields: found.fields.size };
}

await main({ play, listen, pop, scan });
