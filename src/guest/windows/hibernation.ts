/** A hibernated Windows resumes with the drivers of its old hardware: without the file's header it starts anew. */
import type { FileEdit, FilesByPath } from '../../filesystem/by-path.ts';
import type { Change } from '../../filesystem/edit/patch.ts';

const path = '/hiberfil.sys';
const headerBytes = 4096;

export interface Discarded {
  readonly edits: readonly FileEdit[];
  readonly changes: readonly Change[];
  readonly warnings: readonly string[];
}

export function discardHibernation(fileSystem: FilesByPath): Discarded {
  const nothing = { edits: [], changes: [], warnings: [] };
  if (fileSystem.stat(path)?.type !== 'file') return nothing;
  const file = fileSystem.open(path);
  if (file.sizeBytes < headerBytes) return nothing;
  const header = Buffer.alloc(headerBytes);
  file.read(header, 0);
  const signature = header.toString('latin1', 0, 4);
  if (signature.toLowerCase() !== 'hibr') return nothing;
  const change = {
    what: 'discard the hibernated session',
    where: `${path}: its first ${headerBytes} bytes`,
    old: signature,
    new: 'zeros',
    why: 'it would resume with the drivers of the old hardware',
  };
  const warning =
    `${path}: Windows was hibernated, or shut down with fast startup; what its session had not written to the disk is lost, ` +
    'as when the power fails';
  return {
    edits: [{ path, fileOffset: 0, after: new Uint8Array(headerBytes) }],
    changes: [change],
    warnings: [warning],
  };
}
