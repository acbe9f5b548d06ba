# frozen_string_literal: true

# The roles of tests/clients, played by Debian's ruby-redis.

require 'json'
require 'redis'

LARGE = 'every byte of it '.b * (5 * 1024 * 64)
BINARY = "\xff\x00\r\n$-1\r\n".b
STORE = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"
COUNT = "return redis.call('INCR', KEYS[1])"

$stdout.sync = true

def connect(port, **settings)
  # No attempt is repeated by the client.
  Redis.new(port: port, username: 'app', password: 'secret', reconnect_attempts: 0, **settings)
end

# Everything but the optimistic loop and the other database runs on one connection.
class Player
  def initialize(port, name)
    @name = name
    @client = connect(port, id: 'player')
    @client.call('CLIENT', 'SETNAME', 'player')
    @other = connect(port)
    @elsewhere = connect(port, db: 3)
    @counter = "#{name}:counter"
    @rounds = 0
    @acknowledged = 0
    @errors = []
  end

  def play
    before = features("#{@name}:before")
    identity = @client.call('CLIENT', 'ID')
    @elsewhere.set("#{@name}:kept", 'kept')
    loaded = @client.script(:load, "return 'loaded'")
    @count = @client.script(:load, COUNT)
    @client.publish(@name, 'before')
    @other.watch("#{@name}:watched")
    during
    watched = @other.multi { |commands| commands.set("#{@name}:watched", 1) }
    @client.rpush("#{@name}:queue", 'element')
    @client.publish(@name, 'after')
    {
      before: before,
      after: features("#{@name}:after"),
      across: {
        watched: watched,
        'same connection' => @client.call('CLIENT', 'ID') == identity,
        database: @elsewhere.get("#{@name}:kept"),
        script: @client.evalsha(loaded)
      },
      rounds: @rounds, acknowledged: @acknowledged, counted: @client.get(@counter).to_i, errors: @errors
    }
  end

  private

  # Write and read without a pause from before the failover until after it.
  def during
    20.times { round }
    puts 'ready'
    round until $stdin.wait_readable(0)
    20.times { round }
  end

  # Four increments, each with a way of its own, among commands that may be repeated.
  def round
    @rounds += 1
    own = "#{@name}:round"
    @client.set(own, @rounds)
    raise 'what was written is not there' if @client.get(own) != @rounds.to_s

    attempt { @client.incr(@counter) }
    attempt { @client.pipelined { |commands| commands.hset("#{own}:hash", 'field', @rounds); commands.incr(@counter) } }
    attempt { @client.multi { |commands| commands.incr(@counter); commands.rpush("#{own}:list", @rounds) } }
    attempt { @client.evalsha(@count, [@counter]) }
  end

  def attempt
    yield
    @acknowledged += 1
  rescue Redis::CommandError => e
    @errors << e.message
  end

  def features(name)
    odd = "#{name}:\0\r\n".b + "\xff".b
    @client.set("#{name}:string", 'value')
    @client.mapped_mset("#{name}:one" => 1, "#{name}:two" => 2)
    @client.hset("#{name}:hash", { 'field' => 1, 'other' => 2 })
    @client.rpush("#{name}:list", %w[a b c])
    @client.set("#{name}:large", LARGE)
    @client.set(odd, BINARY)
    @elsewhere.set("#{name}:database", 'three')
    identity = @client.call('CLIENT', 'ID').to_s
    {
      string: @client.get("#{name}:string"),
      many: @client.mget("#{name}:one", "#{name}:two", "#{name}:none"),
      hash: @client.hgetall("#{name}:hash"),
      list: @client.lrange("#{name}:list", 0, -1),
      pipeline: @client.pipelined { |commands| queue(commands, "#{name}:pipe") },
      transaction: @client.multi { |commands| queue(commands, "#{name}:multi") },
      optimistic: optimistic("#{name}:optimistic"),
      eval: @client.eval('return {1, ARGV[1], {2}}', [], ['x']),
      script: @client.eval(STORE, ["#{name}:script"], ['lua']),
      large: @client.get("#{name}:large").b == LARGE,
      binary: @client.get(odd).unpack1('H*'),
      database: [@elsewhere.get("#{name}:database"), @client.get("#{name}:database")],
      name: @client.call('CLIENT', 'GETNAME'),
      listed: @client.client(:list).select { |entry| entry['id'] == identity }.map { |entry| entry['name'] },
      user: @client.call('ACL', 'WHOAMI')
    }
  end

  def queue(commands, key)
    commands.incr(key)
    commands.incrby(key, 5)
    commands.get(key)
  end

  # Add one with WATCH, while somebody else writes the first time; the attempts, and the value in the end.
  def optimistic(key)
    @client.set(key, 1)
    (1..).each do |attempt|
      done = @client.watch(key) do
        value = @client.get(key).to_i
        @other.set(key, 10) if attempt == 1
        @client.multi { |commands| commands.set(key, value + 1) }
      end
      return [attempt, @client.get(key)] if done
    end
  end
end

def listen(port, name)
  messages = []
  client = connect(port)
  client.subscribe(name) do |on|
    on.message do |_, message|
      messages << message
      puts "message #{message}"
      client.unsubscribe if message == 'end'
    end
  end
  { messages: messages }
end

def pop(port, name)
  client = connect(port)
  puts 'ready'
  { popped: client.blpop("#{name}:queue", timeout: 30) }
end

def scan(port, name)
  client = connect(port)
  iterators = {
    keys: client.scan_each(match: "#{name}:scan:*", count: 10),
    fields: client.hscan_each("#{name}:fields", count: 10)
  }
  found = iterators.transform_values { |iterator| Array.new(150) { iterator.next } }
  puts 'ready'
  $stdin.gets
  iterators.each { |what, iterator| loop { found[what] << iterator.next } }
  found.transform_values { |items| items.uniq.size }
end

port, role, name = ARGV
outcome = role == 'play' ? Player.new(port.to_i, name).play : send(role, port.to_i, name)
puts JSON.generate(outcome)
