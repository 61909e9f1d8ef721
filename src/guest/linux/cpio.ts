/** cpio archives of the "newc" kind, as the kernel unpacks them at boot: headers of 110 hexadecimal characters, all padded to 4 bytes. */
import { FormatError, UnsupportedError } from '../../base/errors.ts';

export interface CpioEntry {
  /** Without a slash in front. */
  readonly name: string;
  readonly mode: number;
  readonly data: Uint8Array;
}

const headerBytes = 110;
const magics = ['070701', '070702'];
const trailer = 'TRAILER!!!';
const maxEntries = 200_000;
const maxNameBytes = 4096;
export const fileMode = 0o100644;
export const folderMode = 0o40755;

/** @throws FormatError; yields until the archive's end, then returns where that is */
export function* readCpio(bytes: Uint8Array, start: number): Generator<CpioEntry, number> {
  let at = start;
  for (let count = 0; ; count++) {
    if (count > maxEntries) throw new UnsupportedError(`an initramfs of more than ${maxEntries} files; it is not read`);
    const header = Buffer.from(bytes.subarray(at, at + headerBytes)).toString('latin1');
    if (header.length < headerBytes || !magics.includes(header.slice(0, 6)))
      throw new FormatError('cpio', 'header', at, 'is none');
    const field = (index: number): number => Number.parseInt(header.slice(6 + index * 8, 14 + index * 8), 16);
    const [mode, size, nameSize] = [field(1), field(6), field(11)];
    const dataAt = padded(at + headerBytes + nameSize);
    if (!(nameSize > 0 && nameSize <= maxNameBytes && size >= 0 && dataAt + size <= bytes.length))
      throw new FormatError('cpio', 'entry', at, 'is not inside the archive');
    const name = Buffer.from(bytes.subarray(at + headerBytes, at + headerBytes + nameSize - 1)).toString('latin1');
    at = padded(dataAt + size);
    if (name === trailer) return at;
    yield { name: name.replace(/^\.?\/+/, ''), mode, data: bytes.subarray(dataAt, dataAt + size) };
  }
}

/** @param entries folders before what is in them */
export function writeCpio(entries: readonly CpioEntry[]): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const [index, { name, mode, data }] of [
    ...entries,
    { name: trailer, mode: 0, data: new Uint8Array(0) },
  ].entries()) {
    const fields = [index + 1, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, name.length + 1, 0];
    const header = `${magics[0] ?? ''}${fields.map((value) => value.toString(16).padStart(8, '0')).join('')}${name}\0`;
    parts.push(padTo4(Buffer.from(header, 'latin1')), padTo4(data));
  }
  return Buffer.concat(parts);
}

function padded(offset: number): number {
  return offset + ((4 - (offset % 4)) % 4);
}

function padTo4(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([bytes, new Uint8Array(padded(bytes.length) - bytes.length)]);
}
