/** The modes of all files that this program makes, before the umask takes its part. */
export const fileModes = {
  // What a user makes to use it, and lets others read by his umask.
  image: 0o644,
  pluginFile: 0o644,
  /** Of what a reconfigured guest has instead of what the image holds. */
  patchSet: 0o644,
  /** The loader of a disk that is made around volumes. */
  bootFile: 0o644,
  /** Of a disk that was extracted, or is kept as a record. */
  diskFile: 0o644,

  // What a machine has written, and what tells of it: its owner's alone, sealed or not.
  replacement: 0o600,
  replacementMap: 0o600,
  /** A sealed replacement while it is made plain, until it has the plugin file's mode. */
  replacementPlain: 0o600,
  /** The variables of a machine's UEFI. */
  machineVariables: 0o600,

  // What a mount keeps of itself.
  runFolder: 0o700,
  record: 0o600,
  socket: 0o600,
  log: 0o600,
} as const;
