import fs from 'node:fs';
import { spawn } from 'node:child_process';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { unitBytes } from '../../src/replacement/layout.ts';
import { runInjected, systemCalls, whyNoStrace } from '../backup/strace.ts';
import { expectSameBytes, ModelDisk } from '../disk/model-disk.ts';
import { Seeded, seededTest, soak } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { contentsOf, expectStepDoneOrNot } from './interrupted.ts';
import { filesOf, KeptFile, kinds, otherBoots, placeOf } from './kept-file.ts';
import { applyToModel, modelOfBase, nextStep, type Arena, type Step } from './random-steps.ts';
import type { WriteJob } from './write-script.ts';

const script = path.join(import.meta.dirname, 'write-script.ts');
const timeoutMs = 1_800_000;
const baseBytes = 6 * unitBytes + 1000;
const arena: Arena = { from: 0, to: 12 * unitBytes };
/** All that a replacement does to its files. */
const syscalls = ['pwrite64', 'ftruncate', 'fdatasync', 'fsync', 'rename', 'fallocate'];
const kills = soak ? { traced: 150, random: 50 } : { traced: 16, random: 4 };

/** Applies the steps that were acknowledged; returns the one that was under way. */
function replay(model: ModelDisk, job: WriteJob, acknowledged: number): Step | undefined {
  const random = new Seeded(job.seed);
  for (let number = 0; number < acknowledged; number++) {
    applyToModel(model, nextStep(random, model.sizeBytes, job.arena));
  }
  return acknowledged < job.steps ? nextStep(random, model.sizeBytes, job.arena) : undefined;
}

/** How many steps were acknowledged; undefined when not even opening it was. */
function acknowledgedIn(output: string): number | undefined {
  const [opened, ...steps] = output.split('\n').slice(0, -1);
  expect(new Set(steps)).toEqual(new Set(steps.length === 0 ? [] : ['done']));
  return opened === undefined ? undefined : steps.length;
}

function expectAcknowledgedSteps(job: WriteJob, model: ModelDisk, output: string): void {
  const acknowledged = acknowledgedIn(output);
  const step = acknowledged === undefined ? undefined : replay(model, job, acknowledged);
  let found: Buffer;
  {
    using file = new KeptFile(job.place);
    expectStepDoneOrNot(file, model, step);
    // It goes on from there; and once flushed, it outlasts a power loss too.
    file.replacement.write(Uint8Array.of(1), 0);
    file.replacement.sync();
    found = contentsOf(file);
  }
  using file = new KeptFile(job.place, otherBoots[0]);
  expectSameBytes(contentsOf(file), found, 'the file after a power loss');
}

describe.each(kinds)('a process that writes into a replacement (%s data file)', (kind) => {
  // The code is the same but for the data file: a smaller sample of the sealed ones.
  const share = kind === 'plain' || soak ? 1 : 0.5;

  it('and is killed at any system call has lost nothing that it acknowledged', { timeout: timeoutMs }, (ctx) => {
    const noStrace = whyNoStrace();
    if (noStrace !== undefined) ctx.skip(noStrace);
    const { seed } = seededTest(`killed at a call ${kind}`);
    using folder = new TempFolder();
    const startAfresh = (name: string): { job: WriteJob; watched: string[] } => {
      fs.mkdirSync(folder.file(name));
      const place = placeOf(path.join(folder.file(name), 'disk.vhdx'), baseBytes, kind);
      const { data, map } = filesOf(place);
      return {
        job: { place, arena, seed, steps: soak ? 110 : 40 },
        watched: [data, map, `${map}.veneer-part`, folder.file(name)],
      };
    };
    const whole = startAfresh('whole');
    const calls = systemCalls(syscalls, whole.watched, script, [JSON.stringify(whole.job)]);
    expect(new Set(calls)).toEqual(new Set(syscalls));
    const strikes = calls.map((syscall, index) => ({
      syscall,
      when: calls.slice(0, index + 1).filter((other) => other === syscall).length,
    }));
    // The first ones make the files: all of these, and then evenly spread ones.
    const making = calls.lastIndexOf('rename') + 2;
    const rest = strikes.slice(making);
    const every = Math.max(1, rest.length / Math.max(4, kills.traced * share - making));
    const chosen = [...strikes.slice(0, making), ...rest.filter((_, index) => index % every < 1)];
    for (const { syscall, when } of chosen) {
      const { job, watched } = startAfresh(`${syscall} ${when}`);
      const run = runInjected({ syscall, what: 'signal=SIGKILL', when }, watched, script, [JSON.stringify(job)]);
      expect(run.signal, `${syscall} ${when}: ${run.stderr}`).toBe('SIGKILL');
      expectAcknowledgedSteps(job, modelOfBase(baseBytes), run.stdout);
    }
    console.info(`killed at ${chosen.length} of ${calls.length} calls`);
  });

  it(
    'and is killed at any moment, again and again, has lost nothing that it acknowledged',
    { timeout: timeoutMs },
    async () => {
      const random = seededTest(`killed at any moment ${kind}`);
      using folder = new TempFolder();
      const place = placeOf(folder.file('disk.vhdx'), baseBytes, kind);
      let model = modelOfBase(baseBytes);
      for (let kill = 0; kill < kills.random * share; kill++) {
        const job: WriteJob = { place, arena, seed: `${random.seed} ${kill}`, steps: 1_000_000 };
        const output = await killedAfter(job, random.below(150));
        expectAcknowledgedSteps(job, model, output);
        using file = new KeptFile(place);
        model = ModelDisk.of(contentsOf(file));
      }
    },
  );
});

/** What it had printed. */
async function killedAfter(job: WriteJob, delayMs: number): Promise<string> {
  const child = spawn(process.execPath, [script, JSON.stringify(job)], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (text: string) => (output += text));
  const closed = new Promise((resolve) => child.once('close', resolve));
  // From when it is open.
  await new Promise((resolve) => child.stdout.once('data', resolve));
  await setTimeout(delayMs);
  child.kill('SIGKILL');
  await closed;
  expect(child.signalCode).toBe('SIGKILL');
  return output;
}
