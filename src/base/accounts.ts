/** The accounts of this system, as its own library knows them: files, or a directory service. */
import koffi from 'koffi';
import { nobody, type Identity } from './identity.ts';

/** struct passwd of a 64-bit machine: name, password (pointers), user, group (u32), and what is not read here. */
const passwd = { lengthBytes: 56, nameAt: 0, groupAt: 20 } as const;
const textBytes = 16 * 1024;
const maxGroups = 65_536;

const libc = koffi.load(null);
const getpwuid = libc.func(
  'int getpwuid_r(uint uid, _Out_ uint8_t *account, _Out_ uint8_t *text, size_t size, _Out_ uint64_t *found)',
) as (uid: number, account: Uint8Array, text: Uint8Array, size: number, found: BigUint64Array) => number;
const getgrouplist = libc.func(
  'int getgrouplist(const uint8_t *name, uint group, _Out_ uint32_t *groups, _Inout_ int *count)',
) as (name: Uint8Array, group: number, groups: Uint32Array, count: Int32Array) => number;

/** A user with the groups that he has when he logs in. One without an account has none. */
export function identityOfUser(uid: number): Identity {
  const account = new Uint8Array(passwd.lengthBytes);
  const text = new Uint8Array(textBytes);
  const found = new BigUint64Array(1);
  if (getpwuid(uid, account, text, text.length, found) !== 0 || found[0] === 0n) return { ...nobody, uid };
  const view = new DataView(account.buffer);
  const gid = view.getUint32(passwd.groupAt, true);
  const nameAt = Number(view.getBigUint64(passwd.nameAt, true) - koffi.address(text));
  return { uid, gid, groups: groupsOf(text.subarray(nameAt), gid) };
}

/** @param name ends in a zero byte */
function groupsOf(name: Uint8Array, gid: number): readonly number[] {
  const groups = new Uint32Array(maxGroups);
  const count = Int32Array.of(groups.length);
  getgrouplist(name, gid, groups, count);
  return [...groups.subarray(0, Math.max(0, Math.min(groups.length, count[0] ?? 0)))];
}
