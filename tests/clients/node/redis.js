// The roles of tests/clients, played by node-redis.

import { createClient, defineScript, RESP_TYPES, WatchError } from 'redis';

import { BINARY, COUNT, LARGE, STORE, Tally, main, say, told } from './stage.js';

const script = (source) =>
  defineScript({
    SCRIPT: source,
    NUMBER_OF_KEYS: 1,
    parseCommand(parser, key, ...values) {
      parser.pushKey(key);
      parser.push(...values);
    },
    transformReply: (reply) => reply,
  });

async function connect(port, protocol, settings = {}) {
  const client = createClient({
    RESP: protocol,
    socket: { port, host: '127.0.0.1', reconnectStrategy: false },
    username: 'app',
    password: 'secret',
    scripts: { store: script(STORE), count: script(COUNT) },
    ...settings,
  });
  client.on('error', (error) => {
    throw error;
  });
  await client.connect();
  return client;
}

async function optimistic(watcher, other, key) {
  await watcher.set(key, 1);
  for (let attempt = 1; ; attempt += 1) {
    await watcher.watch(key);
    const value = Number(await watcher.get(key));
    if (attempt === 1) await other.set(key, 10);
    try {
      await watcher.multi().set(key, value + 1).exec();
      return [attempt, await watcher.get(key)];
    } catch (error) {
      if (!(error instanceof WatchError)) throw error;
    }
  }
}

async function features(client, other, elsewhere, name) {
  const buffers = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  const odd = Buffer.concat([Buffer.from(`${name}:\0\r\n`), Buffer.from([0xff])]);
  await client.set(`${name}:string`, 'value');
  await client.mSet({ [`${name}:one`]: '1', [`${name}:two`]: '2' });
  await client.hSet(`${name}:hash`, { field: 1, other: 2 });
  await client.rPush(`${name}:list`, ['a', 'b', 'c']);
  await client.set(`${name}:large`, LARGE);
  await client.set(odd, BINARY);
  await elsewhere.set(`${name}:database`, 'three');
  const queue = (key) => client.multi().incr(key).incrBy(key, 5).get(key);
  const identity = await client.clientId();
  return {
    string: await client.get(`${name}:string`),
    many: await client.mGet([`${name}:one`, `${name}:two`, `${name}:none`]),
    hash: await client.hGetAll(`${name}:hash`),
    list: await client.lRange(`${name}:list`, 0, -1),
    pipeline: await queue(`${name}:pipe`).execAsPipeline(),
    transaction: await queue(`${name}:multi`).exec(),
    optimistic: await optimistic(client, other, `${name}:optimistic`),
    eval: await client.eval('return {1, ARGV[1], {2}}', { arguments: ['x'] }),
    script: await client.store(`${name}:script`, 'lua'),
    large: (await buffers.get(`${name}:large`)).equals(LARGE),
    binary: (await buffers.get(odd)).toString('hex'),
    database: [await elsewhere.get(`${name}:database`), await client.get(`${name}:database`)],
    name: await client.clientGetName(),
    listed: (await client.clientList()).filter((entry) => entry.id === identity).map((entry) => entry.name),
    user: await client.aclWhoAmI(),
  };
}

async function play(port, name, protocol) {
  const client = await connect(port, protocol, { name: 'player' });
  const other = await connect(port, protocol);
  const elsewhere = await connect(port, protocol, { database: 3 });
  const before = await features(client, other, elsewhere, `${name}:before`);
  const identity = await client.clientId();
  await elsewhere.set(`${name}:kept`, 'kept');
  const loaded = await client.scriptLoad("return 'loaded'");
  await client.publish(name, 'before');
  await other.watch(`${name}:watched`);

  const tally = new Tally();
  const counter = `${name}:counter`;
  await tally.during(async (round) => {
    await client.set(`${name}:round`, round);
    if ((await client.get(`${name}:round`)) !== String(round)) throw new Error('what was written is not there');
    return [
      () => client.incr(counter),
      () => client.multi().hSet(`${name}:round:hash`, 'field', round).incr(counter).execAsPipeline(),
      () => client.multi().incr(counter).rPush(`${name}:round:list`, String(round)).exec(),
      () => client.count(counter),
    ];
  });

  let watched = null;
  try {
    watched = await other.multi().set(`${name}:watched`, 1).exec();
  } catch (error) {
    if (!(error instanceof WatchError)) throw error;
  }
  await client.rPush(`${name}:queue`, 'element');
  await client.publish(name, 'after');
  return {
    before,
    after: await features(client, other, elsewhere, `${name}:after`),
    across: {
      watched,
      'same connection': (await client.clientId()) === identity,
      database: await elsewhere.get(`${name}:kept`),
      script: await client.evalSha(loaded),
    },
    ...tally.result(),
    counted: Number(await client.get(counter)),
  };
}

async function listen(port, name, protocol) {
  const client = await connect(port, protocol);
  const messages = [];
  await new Promise((resolve, reject) => {
    const heard = (message) => {
      messages.push(message);
      say(`message ${message}`);
      if (message === 'end') resolve();
    };
    client.subscribe(name, heard).catch(reject);
  });
  return { messages };
}

async function pop(port, name, protocol) {
  const client = await connect(port, protocol);
  say('ready');
  const { key, element } = await client.blPop(`${name}:queue`, 30);
  return { popped: [key, element] };
}

async function scan(port, name, protocol) {
  const client = await connect(port, protocol);
  const iterators = {
    keys: client.scanIterator({ MATCH: `${name}:scan:*`, COUNT: 10 }),
    fields: client.hScanIterator(`${name}:fields`, { COUNT: 10 }),
  };
  const found = { keys: new Set(), fields: new Set() };
  const next = async (what) => {
    const { value, done } = await iterators[what].next();
    if (!done) for (const item of value) found[what].add(item.field ?? item);
    return !done;
  };
  for (const what of Object.keys(found)) while (found[what].size < 150) await next(what);
  say('ready');
  await told();
  for (const what of Object.keys(found)) while (await next(what));
  return { keys: found.keys.size, fields: found.fields.size };
}

await main({ play, listen, pop, scan });
