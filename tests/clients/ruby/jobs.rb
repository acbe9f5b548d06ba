# frozen_string_literal: true

# The roles `work` and `enqueue` of tests/clients/test_job_queues.py, played by Debian's ruby-sidekiq.
# As a worker it hands itself to the program `sidekiq`, which requires it again.

require 'json'
require 'sidekiq'

$stdout.sync = true

class Job
  include Sidekiq::Worker
  sidekiq_options retry: false

  def perform(number)
    puts "message #{number}"
  end
end

def configure(port)
  settings = { url: "redis://127.0.0.1:#{port}/0", username: 'app', password: 'secret' }
  Sidekiq.configure_server { |config| config.redis = settings }
  Sidekiq.configure_client { |config| config.redis = settings }
end

def work(port, name)
  exec({ 'PLAYER_PORT' => port }, 'sidekiq', '-r', File.expand_path(__FILE__), '-c', '1', '-q', name)
end

def enqueue(port, name)
  configure(port)
  acknowledged = []
  errors = []
  one_more = lambda do
    number = acknowledged.size + errors.size
    Job.set(queue: name).perform_async(number)
    acknowledged << number
  rescue Redis::CommandError => e
    errors << e.message
  end
  10.times { one_more.call }
  puts 'ready'
  one_more.call until $stdin.wait_readable(0.005)
  10.times { one_more.call }
  puts JSON.generate(acknowledged: acknowledged, errors: errors)
end

if (port = ENV.fetch('PLAYER_PORT', nil))
  configure(port)
else
  port, role, name = ARGV
  send(role, port, name)
end
