/** How a plugin file is known, by its content and never by its name: its first key. What it says is plugin/plugin-file.ts. */

/** The first key of every plugin file, but for white space; within its first bytes. */
const marker = '{"veneer":"pluginfile"';
/** As many bytes as are needed to see the marker. */
export const markerBytes = 64;

/** Whether a file whose first bytes these are claims to be a plugin file. */
export function isPluginFile(firstBytes: Uint8Array): boolean {
  return Buffer.from(firstBytes.subarray(0, markerBytes)).toString('latin1').replaceAll(/\s+/g, '').startsWith(marker);
}
