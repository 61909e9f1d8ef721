/** UEFI for QEMU: Debian's OVMF, and a copy of its variables that the machine may change. */
import * as fs from '../base/fs.ts';
import { UnavailableError } from '../base/errors.ts';
import { fileModes } from '../base/file-modes.ts';
import { quoted } from './hardware.ts';

/** Newer releases ship the 4 MiB build only. */
const builds = [
  { code: '/usr/share/OVMF/OVMF_CODE_4M.fd', variables: '/usr/share/OVMF/OVMF_VARS_4M.fd' },
  { code: '/usr/share/OVMF/OVMF_CODE.fd', variables: '/usr/share/OVMF/OVMF_VARS.fd' },
];

/**
 * @param variablesPath where the machine's variables are, or are to be
 * @throws UnavailableError where OVMF is not installed
 */
export function uefiArguments(variablesPath: string): string[] {
  const build = builds.find(({ code, variables }) => fs.existsSync(code) && fs.existsSync(variables));
  if (build === undefined) {
    throw new UnavailableError(
      '/usr/share/OVMF has no UEFI firmware for QEMU; install the package ovmf, or use --bios',
    );
  }
  const size = fs.statSync(build.variables).size;
  // Variables of the other build do not fit its code.
  if (fs.statSync(variablesPath, { throwIfNoEntry: false })?.size !== size) {
    fs.copyFileSync(build.variables, variablesPath);
    fs.chmodSync(variablesPath, fileModes.machineVariables);
  }
  return [
    ...['-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${build.code}`],
    ...['-drive', `if=pflash,unit=1,format=raw,file=${quoted(variablesPath)}`],
  ];
}
