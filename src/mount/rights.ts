/** With whose rights the folder behind is changed, and files of it are opened. */

export interface Rights {
  /**
   * Runs system calls with the rights of whoever asked for what is being answered, so that the file system behind decides what he may, and
   * what is made is his. What is remembered for everybody is read outside of it, with the server's own.
   * @param action may run twice: a call that is refused has changed nothing
   */
  asCaller<T>(action: () => T): T;
}

/** Of a server that serves nobody but the user who runs it. */
export const ownRights: Rights = { asCaller: (action) => action() };
