/** Run by tests in a process of its own, to be killed: prunes the chains of a folder, whose key it does not have. FOLDER RULES-AS-JSON */
import { applyPrune, planPrune } from '../../../src/backup/care/prune.ts';
import type { RetentionRules } from '../../../src/backup/care/retention.ts';

const [folder = '', rules = '{}'] = process.argv.slice(2);
const options = JSON.parse(rules) as RetentionRules;
await applyPrune(folder, planPrune(folder, options), options);
