#!/usr/bin/perl

# The roles of tests/clients, played by Debian's libredis-perl.

use strict;
use warnings;

use IO::Select;
use JSON::PP;
use Redis;

use constant BINARY => "\xff\x00\r\n\$-1\r\n";
use constant LARGE  => 'every byte of it ' x (5 * 1024 * 64);
use constant STORE  => "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";
use constant COUNT  => "return redis.call('INCR', KEYS[1])";

$| = 1;
my $json = JSON::PP->new->canonical;

sub say_line { print "$_[0]\n" }

sub number { $_[0] + 0 }

sub truth { $_[0] ? JSON::PP::true : JSON::PP::false }

sub connect_to {
    my ($port, %settings) = @_;
    return Redis->new(server => "127.0.0.1:$port", username => 'app', password => 'secret', %settings);
}

my ($port, $role, $name) = @ARGV;
my $counter = "$name:counter";
my ($client, $other, $elsewhere, $count);
my ($rounds, $acknowledged, @errors) = (0, 0);

# What runs in one step and is answered in one; dies with the first error among the replies.
sub pipelined {
    my ($queue) = @_;
    my @replies;
    $queue->(sub {
        my ($reply, $error) = @_;
        push @replies, [$reply, $error];
    });
    $client->wait_all_responses;
    $_->[1] and die "$_->[1]\n" for @replies;
    return [map { $_->[0] } @replies];
}

sub attempt {
    my ($increment) = @_;
    if (eval { $increment->(); 1 }) {
        $acknowledged += 1;
    }
    else {
        push @errors, "$@";
    }
    return;
}

# Four increments, each with a way of its own, among commands that may be repeated.
sub round {
    $rounds += 1;
    my $own = "$name:round";
    $client->set($own, $rounds);
    die 'what was written is not there' if $client->get($own) != $rounds;
    attempt(sub { $client->incr($counter) });
    attempt(sub {
        pipelined(sub {
            my ($reply) = @_;
            $client->hset("$own:hash", 'field', $rounds, $reply);
            $client->incr($counter, $reply);
        });
    });
    attempt(sub {
        $client->multi;
        $client->incr($counter);
        $client->rpush("$own:list", $rounds);
        $client->exec;
    });
    attempt(sub { $client->evalsha($count, 1, $counter) });
    return;
}

# Write and read without a pause from before the failover until after it.
sub during {
    round() for 1 .. 20;
    say_line('ready');
    my $input = IO::Select->new(\*STDIN);
    round() until $input->can_read(0);
    round() for 1 .. 20;
    return;
}

# Add one with WATCH, while somebody else writes the first time; the attempts, and the value in the end.
sub optimistic {
    my ($key) = @_;
    $client->set($key, 1);
    for (my $attempt = 1;; $attempt += 1) {
        $client->watch($key);
        my $value = $client->get($key);
        $other->set($key, 10) if $attempt == 1;
        $client->multi;
        $client->set($key, $value + 1);
        my @done = $client->exec;
        return [$attempt, $client->get($key)] if defined $done[0];
    }
}

sub features {
    my ($own) = @_;
    my $odd = "$own:\0\r\n\xff";
    $client->set("$own:string", 'value');
    $client->mset("$own:one", 1, "$own:two", 2);
    $client->hset("$own:hash", 'field', 1, 'other', 2);
    $client->rpush("$own:list", 'a', 'b', 'c');
    $client->set("$own:large", LARGE);
    $client->set($odd, BINARY);
    $elsewhere->set("$own:database", 'three');
    my $identity = $client->client('ID');
    my @found = grep { /^id=$identity / } split /\n/, $client->client('LIST');
    my $pipeline = pipelined(sub {
        my ($reply) = @_;
        $client->incr("$own:pipe", $reply);
        $client->incrby("$own:pipe", 5, $reply);
        $client->get("$own:pipe", $reply);
    });
    $client->multi;
    $client->incr("$own:multi");
    $client->incrby("$own:multi", 5);
    $client->get("$own:multi");
    my @transaction = $client->exec;
    my @evaluated = $client->eval('return {1, ARGV[1], {2}}', 0, 'x');
    return {
        string      => $client->get("$own:string"),
        many        => [$client->mget("$own:one", "$own:two", "$own:none")],
        hash        => { $client->hgetall("$own:hash") },
        list        => [$client->lrange("$own:list", 0, -1)],
        pipeline    => [number($pipeline->[0]), number($pipeline->[1]), $pipeline->[2]],
        transaction => [number($transaction[0]), number($transaction[1]), $transaction[2]],
        optimistic  => optimistic("$own:optimistic"),
        eval        => [number($evaluated[0]), $evaluated[1], [map { number($_) } @{ $evaluated[2] }]],
        script      => $client->eval(STORE, 1, "$own:script", 'lua'),
        large       => truth($client->get("$own:large") eq LARGE),
        binary      => unpack('H*', $client->get($odd)),
        database    => [$elsewhere->get("$own:database"), scalar $client->get("$own:database")],
        name        => $client->client('GETNAME'),
        listed      => [map { / name=(\S*) / } @found],
        user        => $client->acl('WHOAMI'),
    };
}

sub play {
    ($client, $other, $elsewhere) = (connect_to($port, name => 'player'), connect_to($port), connect_to($port));
    $elsewhere->select(3);
    my $before   = features("$name:before");
    my $identity = $client->client('ID');
    $elsewhere->set("$name:kept", 'kept');
    my $loaded = $client->script('LOAD', "return 'loaded'");
    $count = $client->script('LOAD', COUNT);
    $client->publish($name, 'before');
    $other->watch("$name:watched");
    during();
    $other->multi;
    $other->set("$name:watched", 1);
    my @watched = $other->exec;
    $client->rpush("$name:queue", 'element');
    $client->publish($name, 'after');
    return {
        before => $before,
        after  => features("$name:after"),
        across => {
            watched           => $watched[0],
            'same connection' => truth($client->client('ID') eq $identity),
            database          => scalar $elsewhere->get("$name:kept"),
            script            => $client->evalsha($loaded, 0),
        },
        rounds       => number($rounds),
        acknowledged => number($acknowledged),
        counted      => number($client->get($counter)),
        errors       => \@errors,
    };
}

sub listen_to {
    my @messages;
    my $subscriber = connect_to($port);
    $subscriber->subscribe(
        $name,
        sub {
            my ($message) = @_;
            push @messages, $message;
            say_line("message $message");
        }
    );
    $subscriber->wait_for_messages(1) until @messages && $messages[-1] eq 'end';
    return { messages => \@messages };
}

sub pop_one {
    my $popper = connect_to($port);
    say_line('ready');
    return { popped => [$popper->blpop("$name:queue", 30)] };
}

sub scan {
    my $scanner = connect_to($port);
    my %cursors = (keys => undef, fields => undef);
    my %found   = (keys => {}, fields => {});
    my $next    = sub {
        my ($what) = @_;
        my $cursor = $cursors{$what} // 0;
        ($cursors{$what}, my $page) =
            $what eq 'keys'
            ? $scanner->scan($cursor, 'MATCH', "$name:scan:*", 'COUNT', 10)
            : $scanner->hscan("$name:fields", $cursor, 'COUNT', 10);
        my @items = @$page;
        @items = @items[grep { $_ % 2 == 0 } 0 .. $#items] if $what eq 'fields';
        $found{$what}{$_} = 1 for @items;
        return $cursors{$what} ne '0';
    };
    for my $what (sort keys %found) {
        $next->($what) while keys %{ $found{$what} } < 150;
    }
    say_line('ready');
    readline STDIN;
    for my $what (sort keys %found) {
        1 while $next->($what);
    }
    return { map { $_ => scalar keys %{ $found{$_} } } keys %found };
}

my %roles = (play => \&play, listen => \&listen_to, pop => \&pop_one, scan => \&scan);
say_line($json->encode($roles{$role}->()));
