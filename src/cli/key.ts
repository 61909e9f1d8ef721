/** `veneer key list|add|remove|rotate-slot` */
import { Command, type Option } from 'commander';
import { z } from 'zod';
import { addKey, listKeys, removeKey, rotateKey, type ChangedKeys } from '../backup/care/change-keys.ts';
import { maxKeySlots, type Credential, type SlotDescription } from '../backup/crypto/key-slots.ts';
import { countOption, descriptorOption } from './arguments.ts';
import { askPassphrase, canAskFor, credentialsOf, newCredential, withKeyOptions, type KeyFlags } from './keys.ts';
import { say, sayJson, warn } from './output.ts';

interface NewKeyFlags extends KeyFlags {
  readonly newKeyFile?: string;
  readonly newKeyFd?: number;
  readonly newPassphraseFile?: string;
  readonly newPassphraseFd?: number;
  readonly label?: string;
}

/** `key list`. */
export const keyListSchema = z.object({
  slots: z.array(
    z.object({ slot: z.number(), kind: z.enum(['passphrase', 'key file']), createdAt: z.string(), label: z.string() }),
  ),
  images: z.number(),
  /** Images whose slots are older. */
  behind: z.array(z.string()),
});

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
        const slots = found.slots.map((slot) => ({ ...slot, createdAt: slot.createdAt.toISOString() }));
        sayJson(keyListSchema, { ...found, slots });
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
    .addOption(slotOption())
    .action(async (image: string, flags: KeyFlags & { slot: number }) => {
      tell(image, removeKey(image, await heldKeys(image, flags), flags.slot));
    });
}

function rotateCommand(): Command {
  return withNewKeyOptions(withKeyOptions(new Command('rotate-slot')))
    .description('put another key or passphrase into a slot')
    .argument('<image>')
    .addOption(slotOption())
    .action(async (image: string, flags: NewKeyFlags & { slot: number }) => {
      const held = await heldKeys(image, flags);
      tell(image, rotateKey(image, held, flags.slot, await newKey(flags), flags.label));
    });
}

function slotOption(): Option {
  return countOption('--slot <number>', 'as key list numbers them', {
    least: 0,
    most: maxKeySlots - 1,
  }).makeOptionMandatory();
}

function withNewKeyOptions(command: Command): Command {
  return command
    .option('--new-key-file <file>', 'the new key; only its owner may read it')
    .addOption(descriptorOption('--new-key-fd <fd>', 'the same from an open file descriptor'))
    .option('--new-passphrase-file <file>', 'the new passphrase; only its owner may read it')
    .addOption(descriptorOption('--new-passphrase-fd <fd>', 'the same from an open file descriptor'))
    .option('--label <text>', 'a name for the slot; everyone can read it');
}

/** What opens the chain now; asked for where no option says. */
async function heldKeys(image: string, flags: KeyFlags): Promise<Credential[]> {
  const given = await credentialsOf(flags);
  if (given.length > 0 || !canAskFor(image)) return given;
  return [await askPassphrase(`passphrase of ${image}: `)];
}

async function newKey(flags: NewKeyFlags): Promise<Credential> {
  const one = <T>(value: T | undefined): T[] => (value === undefined ? [] : [value]);
  return await newCredential({
    keyFile: one(flags.newKeyFile),
    keyFd: one(flags.newKeyFd),
    passphraseFile: one(flags.newPassphraseFile),
    passphraseFd: one(flags.newPassphraseFd),
  });
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
