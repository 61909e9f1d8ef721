/** Operations on extended attributes. Those of kinds that are not shown are refused: see extended-attributes.ts. */
import { systemError } from '../../base/system-error.ts';
import { getxattrIn, getxattrOut, operation, setxattrIn } from './protocol.ts';
import { bodyAt, type Handler, type Reply, type Request } from './request.ts';
import type { Session } from './session.ts';

export function attributeOperations(session: Session): ReadonlyArray<readonly [number, Handler]> {
  const { filter } = session;
  return [
    [
      operation.setxattr,
      (request) => {
        const { lengthBytes, flags } = setxattrIn.parse(request.bytes, bodyAt);
        const { text: name, end } = request.text(setxattrIn.sizeBytes);
        const start = bodyAt + end;
        if (start + lengthBytes > request.lengthBytes) throw systemError('EINVAL', 'setxattr', name);
        const value = request.bytes.subarray(start, start + lengthBytes);
        filter.writeAttribute(session.place(request.node), name, value, flags);
        return 0;
      },
    ],
    [
      operation.getxattr,
      (request, reply) => {
        const { lengthBytes } = getxattrIn.parse(request.bytes, bodyAt);
        const { text: name } = request.text(getxattrIn.sizeBytes);
        const found = filter.readAttribute(session.place(request.node), name, reply.front(lengthBytes));
        return lengthBytes === 0 ? putLength(reply, found) : found;
      },
    ],
    [operation.listxattr, (request, reply) => list(session, request, reply)],
    [
      operation.removexattr,
      (request) => {
        filter.removeAttribute(session.place(request.node), request.text(0).text);
        return 0;
      },
    ],
  ];
}

function list(session: Session, request: Request, reply: Reply): number {
  const { lengthBytes } = getxattrIn.parse(request.bytes, bodyAt);
  const names = session.filter.listAttributes(session.place(request.node));
  if (lengthBytes === 0) return putLength(reply, names.length);
  if (names.length > lengthBytes) throw systemError('ERANGE', 'listxattr', `${names.length} bytes`);
  reply.body.set(names);
  return names.length;
}

function putLength(reply: Reply, lengthBytes: number): number {
  getxattrOut.encode({ lengthBytes }, reply.body);
  return getxattrOut.sizeBytes;
}
