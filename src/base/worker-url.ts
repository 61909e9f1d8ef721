/** Where a worker's module lies, in the source tree (.ts) and in the built one (.js) alike. */

/** `workerUrl(import.meta.url, './fill-worker')`: the module beside the caller, with the caller's own extension. */
export function workerUrl(callerUrl: string, relative: string): URL {
  return new URL(relative + callerUrl.slice(callerUrl.lastIndexOf('.')), callerUrl);
}
