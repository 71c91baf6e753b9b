// The little of CEL that our functions use: fields of `event` and `async`, texts, numbers, == != < <= > >= && || and
// parentheses. Anything else is refused, loudly: a double that guesses would prove nothing.

export type Scope = { event: unknown; async?: unknown };
type Value = string | number | boolean | null | undefined;

export function evaluate(expression: string, scope: Scope): boolean {
  const parser = new Parser(expression, scope);
  const value = parser.either();
  parser.end();
  if (typeof value !== "boolean") throw new Error(`no condition: ${expression}`);
  return value;
}

const TOKEN = /\s*(?:(&&|\|\||==|!=|<=|>=|<|>|\(|\))|([A-Za-z_][\w.]*)|(-?\d+(?:\.\d+)?)|'([^'\\]*)'|"([^"\\]*)")/y;

type Token = { operator: string } | { path: string } | { literal: string | number };

class Parser {
  readonly #tokens: Token[] = [];
  readonly #expression: string;
  readonly #scope: Scope;
  #at = 0;

  constructor(expression: string, scope: Scope) {
    this.#expression = expression;
    this.#scope = scope;
    TOKEN.lastIndex = 0;
    let reached = 0;
    while (expression.slice(reached).trim() !== "") {
      const found = TOKEN.exec(expression);
      if (found === null) throw new Error(`not understood at ${reached}: ${expression}`);
      reached = TOKEN.lastIndex;
      const [, operator, path, number, single, double] = found;
      if (operator !== undefined) this.#tokens.push({ operator });
      else if (path !== undefined) this.#tokens.push({ path });
      else if (number !== undefined) this.#tokens.push({ literal: Number(number) });
      else this.#tokens.push({ literal: single ?? double ?? "" });
    }
  }

  end(): void {
    if (this.#at < this.#tokens.length) throw new Error(`more than one condition: ${this.#expression}`);
  }

  either(): Value {
    let left = this.#both();
    while (this.#takes("||")) {
      const right = this.#both();
      left = this.#condition(left) || this.#condition(right);
    }
    return left;
  }

  #both(): Value {
    let left = this.#comparison();
    while (this.#takes("&&")) {
      const right = this.#comparison();
      left = this.#condition(left) && this.#condition(right);
    }
    return left;
  }

  #comparison(): Value {
    const left = this.#operand();
    for (const operator of ["==", "!=", "<=", ">=", "<", ">"]) {
      if (this.#takes(operator)) return this.#compare(left, operator, this.#operand());
    }
    return left;
  }

  #compare(left: Value, operator: string, right: Value): boolean {
    // A field that is missing equals nothing and is before nothing.
    if (left === undefined || right === undefined) return operator === "!=";
    if (operator === "==") return left === right;
    if (operator === "!=") return left !== right;
    const comparable = typeof left === typeof right && (typeof left === "number" || typeof left === "string");
    if (!comparable || left === null || right === null) {
      throw new Error(`${typeof left} ${operator} ${typeof right}: ${this.#expression}`);
    }
    switch (operator) {
      case "<": return left < right;
      case "<=": return left <= right;
      case ">": return left > right;
      default: return left >= right;
    }
  }

  #operand(): Value {
    if (this.#takes("(")) {
      const value = this.either();
      if (!this.#takes(")")) throw new Error(`a parenthesis is open: ${this.#expression}`);
      return value;
    }
    const token = this.#tokens[this.#at++];
    if (token === undefined || "operator" in token) throw new Error(`a value is missing: ${this.#expression}`);
    if ("literal" in token) return token.literal;
    if (token.path === "true") return true;
    if (token.path === "false") return false;
    return this.#field(token.path);
  }

  #field(path: string): Value {
    const [root, ...names] = path.split(".");
    if (root !== "event" && root !== "async") throw new Error(`${path} is not known: ${this.#expression}`);
    let value: unknown = this.#scope[root];
    for (const name of names) {
      value = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
    }
    if (typeof value === "object" && value !== null) throw new Error(`${path} is no plain value`);
    return value as Value;
  }

  #takes(operator: string): boolean {
    const token = this.#tokens[this.#at];
    if (token === undefined || !("operator" in token) || token.operator !== operator) return false;
    this.#at += 1;
    return true;
  }

  #condition(value: Value): boolean {
    if (typeof value !== "boolean") throw new Error(`no condition: ${this.#expression}`);
    return value;
  }
}
