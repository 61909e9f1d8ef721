/** Where something worth a log line goes. */
export type Log = (level: 'info' | 'warn' | 'error', message: string, data: Readonly<Record<string, unknown>>) => void;
