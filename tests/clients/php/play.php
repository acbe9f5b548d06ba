<?php
// The roles of tests/clients, played by Debian's php-redis.

const BINARY = "\xff\x00\r\n$-1\r\n";
const STORE = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";
const COUNT = "return redis.call('INCR', KEYS[1])";

// What PHP only warns of ends the program.
set_error_handler(function (int $level, string $message, string $file, int $line) {
    throw new ErrorException($message, 0, $level, $file, $line);
});

function say(string $line): void
{
    fwrite(STDOUT, "$line\n");
}

function connect(int $port): Redis
{
    $client = new Redis();
    $client->connect('127.0.0.1', $port);
    $client->auth(['app', 'secret']);
    $client->setOption(Redis::OPT_MAX_RETRIES, 0);
    return $client;
}

/** Everything but the optimistic loop and the other database runs on one connection. */
final class Player
{
    private Redis $client;
    private Redis $other;
    private Redis $elsewhere;
    private string $counter;
    private string $count = '';
    private string $large;
    private int $rounds = 0;
    private int $acknowledged = 0;
    private array $errors = [];

    public function __construct(int $port, private string $name)
    {
        $this->client = connect($port);
        $this->client->client('setname', 'player');
        $this->other = connect($port);
        $this->elsewhere = connect($port);
        $this->elsewhere->select(3);
        $this->counter = "$name:counter";
        $this->large = str_repeat('every byte of it ', 5 * 1024 * 64);
    }

    public function play(): array
    {
        $before = $this->features("$this->name:before");
        $identity = $this->client->client('id');
        $this->elsewhere->set("$this->name:kept", 'kept');
        $loaded = $this->client->script('load', "return 'loaded'");
        $this->count = $this->client->script('load', COUNT);
        $this->client->publish($this->name, 'before');
        $this->other->watch("$this->name:watched");
        $this->during();
        $watched = $this->other->multi()->set("$this->name:watched", 1)->exec();
        $this->client->rPush("$this->name:queue", 'element');
        $this->client->publish($this->name, 'after');
        return [
            'before' => $before,
            'after' => $this->features("$this->name:after"),
            'across' => [
                'watched' => $watched === false ? null : $watched,
                'same connection' => $this->client->client('id') === $identity,
                'database' => $this->elsewhere->get("$this->name:kept"),
                'script' => $this->client->evalSha($loaded),
            ],
            'rounds' => $this->rounds,
            'acknowledged' => $this->acknowledged,
            'counted' => (int) $this->client->get($this->counter),
            'errors' => $this->errors,
        ];
    }

    /** Write and read without a pause from before the failover until after it. */
    private function during(): void
    {
        for ($count = 0; $count < 20; $count++) {
            $this->round();
        }
        say('ready');
        do {
            $this->round();
            [$read, $none] = [[STDIN], null];
        } while (!stream_select($read, $none, $none, 0));
        for ($count = 0; $count < 20; $count++) {
            $this->round();
        }
    }

    /** Four increments, each with a way of its own, among commands that may be repeated. */
    private function round(): void
    {
        $this->rounds++;
        $own = "$this->name:round";
        $this->client->set($own, $this->rounds);
        if ($this->client->get($own) !== (string) $this->rounds) {
            throw new Exception('what was written is not there');
        }
        $this->attempt(fn() => $this->client->incr($this->counter));
        $this->attempt(fn() => $this->last(
            $this->client->pipeline()->hSet("$own:hash", 'field', $this->rounds)->incr($this->counter)->exec()
        ));
        $this->attempt(fn() => $this->transaction(['INCR', $this->counter], ['RPUSH', "$own:list", $this->rounds]));
        $this->attempt(fn() => $this->client->evalSha($this->count, [$this->counter], 1));
    }

    /** Not by `exec()`: php-redis 5.3 takes any error there for an array, and waits for its elements in vain. */
    private function transaction(array ...$commands): mixed
    {
        $this->client->rawCommand('MULTI');
        foreach ($commands as $command) {
            $this->client->rawCommand(...$command);
        }
        return $this->client->rawCommand('EXEC');
    }

    /** The reply of a pipeline that tells whether it was carried out. */
    private function last(array $replies): mixed
    {
        return end($replies);
    }

    private function attempt(callable $increment): void
    {
        $this->client->clearLastError();
        try {
            $done = $increment();
        } catch (RedisException $error) {
            $this->errors[] = $error->getMessage();
            return;
        }
        if ($done === false) {
            $this->errors[] = (string) $this->client->getLastError();
        } else {
            $this->acknowledged++;
        }
    }

    private function features(string $name): array
    {
        $client = $this->client;
        $odd = "$name:\0\r\n\xff";
        $client->set("$name:string", 'value');
        $client->mSet(["$name:one" => 1, "$name:two" => 2]);
        $client->hMSet("$name:hash", ['field' => 1, 'other' => 2]);
        $client->rPush("$name:list", 'a', 'b', 'c');
        $client->set("$name:large", $this->large);
        $client->set($odd, BINARY);
        $this->elsewhere->set("$name:database", 'three');
        $identity = $client->client('id');
        $many = $client->mGet(["$name:one", "$name:two", "$name:none"]);
        $found = array_filter($client->client('list'), fn($entry) => (int) $entry['id'] === $identity);
        return [
            'string' => $client->get("$name:string"),
            'many' => array_map(fn($value) => $value === false ? null : $value, $many),
            'hash' => $client->hGetAll("$name:hash"),
            'list' => $client->lRange("$name:list", 0, -1),
            'pipeline' => $client->pipeline()->incr("$name:pipe")->incrBy("$name:pipe", 5)->get("$name:pipe")->exec(),
            'transaction' => $client->multi()->incr("$name:multi")->incrBy("$name:multi", 5)->get("$name:multi")->exec(),
            'optimistic' => $this->optimistic("$name:optimistic"),
            'eval' => $client->eval('return {1, ARGV[1], {2}}', ['x'], 0),
            'script' => $client->eval(STORE, ["$name:script", 'lua'], 1),
            'large' => $client->get("$name:large") === $this->large,
            'binary' => bin2hex($client->get($odd)),
            'database' => [$this->elsewhere->get("$name:database"), $client->get("$name:database") ?: null],
            'name' => $client->client('getname'),
            'listed' => array_values(array_map(fn($entry) => $entry['name'], $found)),
            'user' => $client->acl('whoami'),
        ];
    }

    /** Add one with WATCH, while somebody else writes the first time; the attempts, and the value in the end. */
    private function optimistic(string $key): array
    {
        $this->client->set($key, 1);
        for ($attempt = 1;; $attempt++) {
            $this->client->watch($key);
            $value = (int) $this->client->get($key);
            if ($attempt === 1) {
                $this->other->set($key, 10);
            }
            if ($this->client->multi()->set($key, $value + 1)->exec() !== false) {
                return [$attempt, $this->client->get($key)];
            }
        }
    }
}

function play(int $port, string $name): array
{
    return (new Player($port, $name))->play();
}

function listen(int $port, string $name): array
{
    $client = connect($port);
    $client->setOption(Redis::OPT_READ_TIMEOUT, -1);
    $messages = [];
    try {
        $client->subscribe([$name], function (Redis $client, string $channel, string $message) use (&$messages) {
            $messages[] = $message;
            say("message $message");
            if ($message === 'end') {
                $client->close();
            }
        });
    } catch (RedisException $error) {
        // `subscribe` only ends with its connection.
        if (end($messages) !== 'end') {
            throw $error;
        }
    }
    return ['messages' => $messages];
}

function pop(int $port, string $name): array
{
    $client = connect($port);
    $client->setOption(Redis::OPT_READ_TIMEOUT, -1);
    say('ready');
    return ['popped' => $client->blPop(["$name:queue"], 30)];
}

function scan(int $port, string $name): array
{
    $client = connect($port);
    $cursors = ['keys' => null, 'fields' => null];
    $found = ['keys' => [], 'fields' => []];
    $next = function (string $what) use ($client, $name, &$cursors, &$found): bool {
        $page = $what === 'keys'
            ? $client->scan($cursors[$what], "$name:scan:*", 10)
            : $client->hScan("$name:fields", $cursors[$what], null, 10);
        if ($page !== false) {
            $found[$what] += $what === 'keys' ? array_flip($page) : $page;
        }
        return $cursors[$what] !== 0;
    };
    foreach (array_keys($found) as $what) {
        while (count($found[$what]) < 150) {
            $next($what);
        }
    }
    say('ready');
    fgets(STDIN);
    foreach (array_keys($found) as $what) {
        while ($next($what)) {
        }
    }
    return array_map('count', $found);
}

[, $port, $role, $name] = $argv;
say(json_encode($role((int) $port, $name), JSON_THROW_ON_ERROR));
