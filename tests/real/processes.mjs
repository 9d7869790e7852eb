// Child processes of the test: started, read line by line, ended by id.
import {spawn} from 'node:child_process';
import {createInterface} from 'node:readline';

const running = new Set();

export class Process {
  lines = [];
  #waiting = [];

  constructor(name, command, args, options = {}) {
    this.name = name;
    this.child = spawn(command, args, {stdio: ['pipe', 'pipe', 'pipe'], ...options});
    running.add(this);
    this.exited = new Promise((resolve) => this.child.on('exit', (code, signal) => {
      running.delete(this);
      this.status = {code, signal};
      for (const {reject} of this.#waiting.splice(0)) reject(new Error(`${name} ended: ${JSON.stringify(this.status)}\n${this.tail()}`));
      resolve(this.status);
    }));
    this.child.on('error', (error) => this.#heard(`cannot start: ${error.message}`));
    this.child.stdin?.on('error', () => {});
    for (const stream of [this.child.stdout, this.child.stderr]) {
      if (stream) createInterface({input: stream}).on('line', (line) => this.#heard(line));
    }
  }

  #heard(line) {
    this.lines.push(line);
    this.#waiting = this.#waiting.filter(({pattern, resolve}) => {
      const match = line.match(pattern);
      if (match) resolve(match);
      return !match;
    });
  }

  tail() {
    return this.lines.slice(-30).map((line) => `  ${this.name}| ${line.slice(0, 400)}`).join('\n');
  }

  /** The first line, heard already or yet to come, that matches `pattern`. `from` skips lines heard before. */
  line(pattern, {seconds = 60, from = 0} = {}) {
    for (const line of this.lines.slice(from)) {
      const match = line.match(pattern);
      if (match) return Promise.resolve(match);
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({pattern, resolve, reject});
      setTimeout(() => reject(new Error(`${this.name}: no line ${pattern} in ${seconds} s\n${this.tail()}`)), seconds * 1000).unref();
    });
  }

  say(document) {
    this.child.stdin.write(`${JSON.stringify(document)}\n`);
  }

  async kill(signal = 'SIGKILL') {
    this.child.kill(signal);
    return this.exited;
  }
}

/** Runs a command to its end, which must be with one of these codes, and returns its stdout. */
export const output = (command, args, options = {}, codes = [0]) => new Promise((resolve, reject) => {
  const child = spawn(command, args, {stdio: ['ignore', 'pipe', 'pipe'], ...options});
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (data) => { stdout += data; });
  child.stderr.on('data', (data) => { stderr += data; });
  // Not at its exit: there may be more to read.
  child.on('close', (code) => (codes.includes(code) ? resolve(stdout) : reject(new Error(`${command} ${args.join(' ')}: exit ${code}\n${stderr}`))));
});

export const endAll = () => Promise.all([...running].map((process) => process.kill('SIGTERM').then(() => {}, () => {})));
