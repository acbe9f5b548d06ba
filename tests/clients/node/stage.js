// What every program of this folder says and hears; see the package in the folder above.

import { createInterface } from 'node:readline';

export const LARGE = Buffer.alloc(5 * 1024 * 1024, 'every byte of it ');
export const BINARY = Buffer.from('ff000d0a242d310d0a', 'hex');
export const STORE = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";
export const COUNT = "return redis.call('INCR', KEYS[1])";

export function say(line) {
  process.stdout.write(`${line}\n`);
}

/** Resolves when there is a new master. */
export function told() {
  return new Promise((resolve) => createInterface({ input: process.stdin }).once('line', resolve));
}

/** Play the role of the command line, say its outcome, and end: open connections do not keep the program. */
export async function main(roles) {
  const [port, role, name, protocol] = process.argv.slice(2);
  const outcome = await roles[role](Number(port), name, Number(protocol));
  process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit(0));
}

/** The commands that are run without a pause from before the failover until after it. */
export class Tally {
  rounds = 0;
  acknowledged = 0;
  errors = [];

  /** `increments` returns functions that add one each; only what the server answers is an error of theirs. */
  async during(increments) {
    for (let count = 0; count < 20; count += 1) await this.#round(increments);
    let goingOn = false;
    const word = told().then(() => { goingOn = true; });
    say('ready');
    while (!goingOn) await this.#round(increments);
    await word;
    for (let count = 0; count < 20; count += 1) await this.#round(increments);
  }

  async #round(increments) {
    this.rounds += 1;
    for (const increment of await increments(this.rounds)) {
      try {
        await increment();
        this.acknowledged += 1;
      } catch (error) {
        if (!/^[A-Z]+ /.test(error.message)) throw error;
        this.errors.push(error.message);
      }
    }
  }

  result() {
    return { rounds: this.rounds, acknowledged: this.acknowledged, errors: this.errors };
  }
}
