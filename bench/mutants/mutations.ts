/**
 * The mutants of a source file: each is one small change of its text that still parses. Whether it is of the right type does not matter, for
 * nothing checks types at run time.
 *
 * Types, imports, comments and the messages of errors are left alone.
 */
import { createHash } from 'node:crypto';
import ts from 'typescript';

export interface Mutation {
  /** Of the file, its line's text and the change: it stays when other lines come and go. */
  readonly id: string;
  /** Of the checkout, such as `src/replacement/open.ts`. */
  readonly file: string;
  /** From 1. */
  readonly line: number;
  readonly start: number;
  readonly end: number;
  readonly before: string;
  readonly after: string;
}

interface Change {
  readonly start: number;
  readonly end: number;
  readonly after: string;
}

const idLetters = 8;

const swappedOperators: ReadonlyMap<ts.SyntaxKind, string> = new Map([
  [ts.SyntaxKind.LessThanToken, '<='],
  [ts.SyntaxKind.LessThanEqualsToken, '<'],
  [ts.SyntaxKind.GreaterThanToken, '>='],
  [ts.SyntaxKind.GreaterThanEqualsToken, '>'],
  [ts.SyntaxKind.EqualsEqualsEqualsToken, '!=='],
  [ts.SyntaxKind.ExclamationEqualsEqualsToken, '==='],
  [ts.SyntaxKind.PlusToken, '-'],
  [ts.SyntaxKind.MinusToken, '+'],
  [ts.SyntaxKind.AsteriskToken, '/'],
  [ts.SyntaxKind.SlashToken, '*'],
  [ts.SyntaxKind.PercentToken, '*'],
  [ts.SyntaxKind.AmpersandToken, '|'],
  [ts.SyntaxKind.BarToken, '&'],
  [ts.SyntaxKind.AmpersandAmpersandToken, '||'],
  [ts.SyntaxKind.BarBarToken, '&&'],
  [ts.SyntaxKind.PlusEqualsToken, '-='],
  [ts.SyntaxKind.MinusEqualsToken, '+='],
]);

/** Operators whose swap is the negation of the whole. */
const equalities: ReadonlySet<ts.SyntaxKind> = new Set([
  ts.SyntaxKind.EqualsEqualsEqualsToken,
  ts.SyntaxKind.ExclamationEqualsEqualsToken,
]);

/**
 * All mutants of a file, in the order of its text.
 * @param checker for the constants that a type allows in a text's place
 */
export function mutationsOf(name: string, source: ts.SourceFile, checker: ts.TypeChecker): Mutation[] {
  const changes: Change[] = [];
  const visit = (node: ts.Node): void => {
    if (isLeftAlone(node)) return;
    changes.push(...changesOf(node, source, checker));
    ts.forEachChild(node, visit);
  };
  visit(source);
  const seen = new Map<string, number>();
  return changes
    .toSorted((a, b) => a.start - b.start || a.end - b.end)
    .map((change) => named(name, source, change, seen));
}

/** The text with the mutant in it. */
export function mutated(text: string, { start, end, after }: Mutation): string {
  return text.slice(0, start) + after + text.slice(end);
}

function named(name: string, source: ts.SourceFile, change: Change, seen: Map<string, number>): Mutation {
  const { line } = source.getLineAndCharacterOfPosition(change.start);
  const [first, last] = [source.getLineStarts()[line] ?? 0, source.getLineStarts()[line + 1] ?? source.text.length];
  const before = source.text.slice(change.start, change.end);
  const key = [name, source.text.slice(first, last).trim(), before, change.after].join('\0');
  const nth = seen.get(key) ?? 0;
  seen.set(key, nth + 1);
  const id = createHash('sha256').update(`${key}\0${nth}`).digest('hex').slice(0, idLetters);
  return { id, file: name, line: line + 1, ...change, before };
}

function isLeftAlone(node: ts.Node): boolean {
  return (
    ts.isTypeNode(node) ||
    ts.isImportDeclaration(node) ||
    ts.isExportDeclaration(node) ||
    ts.isInterfaceDeclaration(node) ||
    ts.isTypeAliasDeclaration(node) ||
    (ts.isNewExpression(node) && node.expression.getText().endsWith('Error'))
  );
}

function changesOf(node: ts.Node, source: ts.SourceFile, checker: ts.TypeChecker): Change[] {
  const replace = (changed: ts.Node, after: string): Change => ({
    start: changed.getStart(source),
    end: changed.getEnd(),
    after,
  });
  if (ts.isBinaryExpression(node)) {
    const after = swappedOperators.get(node.operatorToken.kind);
    return after === undefined || joinsTexts(node) ? [] : [replace(node.operatorToken, after)];
  }
  if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.ExclamationToken)
    return [replace(node, node.operand.getText(source))];
  if (ts.isPrefixUnaryExpression(node) || ts.isPostfixUnaryExpression(node)) return stepped(node, source);
  if (ts.isNumericLiteral(node) || ts.isBigIntLiteral(node)) return [replace(node, offByOne(node.text))];
  if (node.kind === ts.SyntaxKind.TrueKeyword) return [replace(node, 'false')];
  if (node.kind === ts.SyntaxKind.FalseKeyword) return [replace(node, 'true')];
  if (ts.isStringLiteral(node)) return otherTexts(node, checker).map((text) => replace(node, `'${text}'`));
  if (ts.isExpressionStatement(node) && isCall(node.expression)) return [replace(node, '{}')];
  if (ts.isVariableDeclarationList(node)) return neverClosed(node, source);
  return [
    ...(ts.isIfStatement(node) && isGuard(node) ? [replace(node, '{}')] : []),
    ...(conditionOf(node) ?? []).map((condition) => replace(condition, `!(${condition.getText(source)})`)),
  ];
}

/** The condition of a statement or a choice, where no swapped operator negates it already. */
function conditionOf(node: ts.Node): ts.Expression[] | undefined {
  const condition =
    ts.isIfStatement(node) || ts.isWhileStatement(node) || ts.isDoStatement(node)
      ? node.expression
      : ts.isConditionalExpression(node) || ts.isForStatement(node)
        ? node.condition
        : undefined;
  if (condition === undefined || ts.isPrefixUnaryExpression(condition)) return undefined;
  const isEquality = ts.isBinaryExpression(condition) && equalities.has(condition.operatorToken.kind);
  return isEquality || condition.kind === ts.SyntaxKind.TrueKeyword ? undefined : [condition];
}

/** Whether it ends what it stands in, and does nothing else. */
function isGuard(node: ts.IfStatement): boolean {
  const then = ts.isBlock(node.thenStatement) ? node.thenStatement.statements[0] : node.thenStatement;
  if (node.elseStatement !== undefined || then === undefined) return false;
  return (
    ts.isReturnStatement(then) || ts.isThrowStatement(then) || ts.isContinueStatement(then) || ts.isBreakStatement(then)
  );
}

function isCall(expression: ts.Expression): boolean {
  return ts.isAwaitExpression(expression) ? isCall(expression.expression) : ts.isCallExpression(expression);
}

/** `using` that has become `const`: what it holds is never given back. */
function neverClosed(list: ts.VariableDeclarationList, source: ts.SourceFile): Change[] {
  const start = list.getStart(source);
  const keyword = /^(await\s+)?using\b/.exec(source.text.slice(start))?.[0];
  return keyword === undefined ? [] : [{ start, end: start + keyword.length, after: 'const' }];
}

function stepped(node: ts.PrefixUnaryExpression | ts.PostfixUnaryExpression, source: ts.SourceFile): Change[] {
  const after = new Map([
    [ts.SyntaxKind.PlusPlusToken, '--'],
    [ts.SyntaxKind.MinusMinusToken, '++'],
  ]).get(node.operator);
  if (after === undefined) return [];
  const start = ts.isPrefixUnaryExpression(node) ? node.getStart(source) : node.getEnd() - after.length;
  return [{ start, end: start + after.length, after }];
}

/** @param text as the parser tells it: decimal, without `_` */
function offByOne(text: string): string {
  return text.endsWith('n') ? `${BigInt(text.slice(0, -1)) + 1n}n` : `${Number(text) + 1}`;
}

function joinsTexts(node: ts.BinaryExpression): boolean {
  const isText = (side: ts.Expression): boolean =>
    ts.isStringLiteralLike(side) || ts.isTemplateExpression(side) || (ts.isBinaryExpression(side) && joinsTexts(side));
  return node.operatorToken.kind === ts.SyntaxKind.PlusToken && (isText(node.left) || isText(node.right));
}

/** The next of the texts that the place's type is a choice of. */
function otherTexts(node: ts.StringLiteral, checker: ts.TypeChecker): string[] {
  const type = checker.getContextualType(node);
  if (type?.isUnion() !== true) return [];
  const texts = type.types.flatMap((member) => (member.isStringLiteral() ? [member.value] : []));
  const place = texts.indexOf(node.text);
  const next = texts[(place + 1) % texts.length];
  return place < 0 || next === undefined || next === node.text || /['\\\n]/.test(next) ? [] : [next];
}
