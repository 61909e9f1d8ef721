/** What geometries in plugin files are made of, as zod schemas: a plugin file comes from outside. What a geometry means is its format's to check. */
import { z } from 'zod';

export const size = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
export const guid = z.string().regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'is not a GUID in lower case');
/** Runs of units that hold data, by `encodeRuns`. */
export const allocation = z.string();
