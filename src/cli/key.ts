/** `veneer key list|add|remove|rotate-slot` */
import { Command } from 'commander';
import { UsageError } from '../base/errors.ts';
import { addKey, listKeys, removeKey, rotateKey, type ChangedKeys } from '../backup/change-keys.ts';
import type { Credential, SlotDescription } from '../backup/key-slots.ts';
import { askPassphrase, canAskFor, credentialsOf, newCredential, withKeyOptions, type KeyFlags } from './keys.ts';
import { say, sayJson, warn } from './output.ts';

interface NewKeyFlags extends KeyFlags {
  readonly newKeyFile?: string;
  readonly newKeyFd?: string;
  readonly newPassphraseFile?: string;
  readonly newPassphraseFd?: string;
  readonly label?: string;
}

export function keyCommand(): Command {
  return new Command('key')
    .description(
      'the keys and passphrases that open an encrypted chain; all images of the chain in the folder are changed',
    )
    .addCommand(listCommand())
    .addCommand(addCommand())
    .addCommand(removeCommand())
    .addCommand(rotateCommand());
}

function listCommand(): Command {
  return new Command('list')
    .description('the slots of a chain; needs no key')
    .argument('<image>')
    .option('--json', 'for programs')
    .action((image: string, flags: { json?: boolean }) => {
      const found = listKeys(image);
      if (flags.json === true) {
        sayJson(found);
        return;
      }
      say(...found.slots.map(slotText));
      if (found.behind.length > 0)
        warn(
          `${found.behind.join(', ')}: older slots; veneer key add with a key that is there already brings them up to date`,
        );
    });
}

function addCommand(): Command {
  return withNewKeyOptions(withKeyOptions(new Command('add')))
    .description('let another key or passphrase open a chain')
    .argument('<image>')
    .action(async (image: string, flags: NewKeyFlags) => {
      const held = await heldKeys(image, flags);
      tell(image, addKey(image, held, await newKey(flags), flags.label));
    });
}

function removeCommand(): Command {
  return withKeyOptions(new Command('remove'))
    .description('take away a slot; the last one stays')
    .argument('<image>')
    .requiredOption('--slot <number>', 'as key list numbers them')
    .action(async (image: string, flags: KeyFlags & { slot: string }) => {
      tell(image, removeKey(image, await heldKeys(image, flags), slotNumber(flags.slot)));
    });
}

function rotateCommand(): Command {
  return withNewKeyOptions(withKeyOptions(new Command('rotate-slot')))
    .description('put another key or passphrase into a slot')
    .argument('<image>')
    .requiredOption('--slot <number>', 'as key list numbers them')
    .action(async (image: string, flags: NewKeyFlags & { slot: string }) => {
      const held = await heldKeys(image, flags);
      tell(image, rotateKey(image, held, slotNumber(flags.slot), await newKey(flags), flags.label));
    });
}

function withNewKeyOptions(command: Command): Command {
  return command
    .option('--new-key-file <file>', 'the new key; only its owner may read it')
    .option('--new-key-fd <fd>', 'the same from an open file descriptor')
    .option('--new-passphrase-file <file>', 'the new passphrase; only its owner may read it')
    .option('--new-passphrase-fd <fd>', 'the same from an open file descriptor')
    .option('--label <text>', 'a name for the slot; everyone can read it');
}

/** What opens the chain now; asked for where no option says. */
async function heldKeys(image: string, flags: KeyFlags): Promise<Credential[]> {
  const given = await credentialsOf(flags);
  if (given.length > 0 || !canAskFor(image)) return given;
  return [await askPassphrase(`passphrase of ${image}: `)];
}

async function newKey(flags: NewKeyFlags): Promise<Credential> {
  const one = (value: string | undefined): string[] => (value === undefined ? [] : [value]);
  return await newCredential({
    keyFile: one(flags.newKeyFile),
    keyFd: one(flags.newKeyFd),
    passphraseFile: one(flags.newPassphraseFile),
    passphraseFd: one(flags.newPassphraseFd),
  });
}

function slotNumber(text: string): number {
  const slot = Number(text);
  if (!Number.isInteger(slot) || slot < 0) throw new UsageError(`--slot: "${text}" is not the number of a slot`);
  return slot;
}

function tell(image: string, { slots, images, slot }: ChangedKeys): void {
  const where = slot === undefined ? '' : `slot ${slot} is written, `;
  say(
    `${image}: ${where}${slots.length} key${slots.length === 1 ? '' : 's'} open its chain, in ${images} image${images === 1 ? '' : 's'}`,
  );
}

function slotText({ slot, kind, createdAt, label }: SlotDescription): string {
  return `${slot}  ${kind.padEnd(10)}  ${createdAt.toISOString()}${label === '' ? '' : `  ${label}`}`;
}
