/** UEFI for QEMU: Debian's OVMF, and a copy of its variables that the machine may change. */
import * as fs from '../base/fs.ts';
import { UnavailableError, UsageError } from '../base/errors.ts';
import { fileModes } from '../base/file-modes.ts';
import { quoted } from './hardware.ts';

/** Newer releases ship the 4 MiB build only. */
const builds = [
  { code: '/usr/share/OVMF/OVMF_CODE_4M.fd', variables: '/usr/share/OVMF/OVMF_VARS_4M.fd' },
  { code: '/usr/share/OVMF/OVMF_CODE.fd', variables: '/usr/share/OVMF/OVMF_VARS.fd' },
];

/**
 * @param variablesPath where the machine's variables are, or are to be
 * @throws UnavailableError where OVMF is not installed; UsageError where something else has the place of the variables: it is left alone
 */
export function uefiArguments(variablesPath: string): string[] {
  const build = builds.find(({ code, variables }) => fs.existsSync(code) && fs.existsSync(variables));
  if (build === undefined) {
    throw new UnavailableError(
      '/usr/share/OVMF has no UEFI firmware for QEMU; install the package ovmf, or use --bios',
    );
  }
  const { size } = fs.statSync(build.variables);
  const there = fs.lstatSync(variablesPath, { throwIfNoEntry: false });
  if (there === undefined) {
    fs.copyFileSync(build.variables, variablesPath, fs.constants.COPYFILE_EXCL);
    fs.chmodSync(variablesPath, fileModes.machineVariables);
  } else if (!there.isFile() || there.size !== size) {
    throw new UsageError(
      `${variablesPath}: is no file of ${size} bytes, as the variables of the firmware here are (${build.code}); move it away, and the machine begins with new ones`,
    );
  }
  return [
    ...['-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${build.code}`],
    ...['-drive', `if=pflash,unit=1,format=raw,file=${quoted(variablesPath)}`],
  ];
}
