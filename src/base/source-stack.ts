/** The stack of an error in places of our sources. The build has few files, whose maps lie beside them: read when a stack is told, not at each start. */
import { SourceMap, type SourceMapPayload } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as fs from './fs.ts';

/** @returns as given, where there is no map */
export function inSources(stack: string): string {
  return stack.replace(/(file:\/\/[^\s()]+):(\d+):(\d+)/g, (place, url: string, line: string, column: string) => {
    try {
      const file = fileURLToPath(url);
      const map = new SourceMap(JSON.parse(fs.readFileSync(`${file}.map`, 'utf8')) as SourceMapPayload);
      const origin = map.findOrigin(Number(line), Number(column));
      if (!('fileName' in origin)) return place;
      return `${path.join(path.dirname(file), origin.fileName)}:${origin.lineNumber}:${origin.columnNumber}`;
    } catch {
      return place;
    }
  });
}
