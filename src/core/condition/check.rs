//! What an expression may contain. Whatever is not named here is refused at compile time, so that no condition decides
//! by accident (a misspelt name, a field of a number) and none costs more than its length suggests.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, operators};

/// How an expression uses `result`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// As a list.
    pub list: bool,
    /// It calls `isNaN` or `default`.
    pub handles_nan: bool,
    /// It calls `default` or `size`.
    pub handles_missing: bool,
}

/// The name of the value.
const RESULT: &str = "result";

/// Functions with the number of their arguments; `min`, `max`, `sum` and `mean` also take several numbers.
const FUNCTIONS: [(&str, usize); 15] = [
    ("isNaN", 1),
    ("isInf", 1),
    ("default", 2),
    ("size", 1),
    ("len", 1),
    ("double", 1),
    ("asFloat", 1),
    ("int", 1),
    ("asInt", 1),
    ("string", 1),
    ("abs", 1),
    ("min", usize::MAX),
    ("max", usize::MAX),
    ("sum", usize::MAX),
    ("mean", usize::MAX),
];

/// Methods on text, with the number of their arguments; `size` also on lists.
const METHODS: [(&str, usize); 5] = [("startsWith", 1), ("endsWith", 1), ("contains", 1), ("matches", 1), ("size", 0)];

/// Operators that mix integers and decimals freely here; CEL's own do not.
const MIXED: [&str; 11] = [
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    operators::ADD,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
];

/// Operators that are CEL's own.
const PLAIN: [&str; 6] = [
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::NEGATE,
    operators::CONDITIONAL,
    operators::NOT_STRICTLY_FALSE,
];

/// What the names in an expression stand for.
#[derive(Clone, Copy, Debug, Default)]
pub enum Scope<'a> {
    /// `result` is a value or a list of values.
    #[default]
    Value,
    /// `result` is a JSON document.
    Document,
    /// These names are values or lists of values.
    Names(&'a BTreeSet<String>),
}

/// Checks an expression and puts this module's operators in place of CEL's.
pub fn check(expression: &mut IdedExpr, scope: Scope<'_>) -> Result<Uses, String> {
    let mut walk = Walk { scope, ..Walk::default() };
    walk.visit(expression)?;
    match scope {
        _ if walk.saw_result => Ok(walk.uses),
        Scope::Names(names) => Err(format!("it uses none of {}", listed(names))),
        Scope::Value | Scope::Document => Err("it does not use `result`".into()),
    }
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The operator's name in the functions that replace it.
pub fn replaced(operator: &str) -> String {
    format!("@{operator}")
}

/// All operators that are replaced.
pub fn mixed_operators() -> impl Iterator<Item = &'static str> {
    MIXED.into_iter().chain([operators::IN])
}

#[derive(Default)]
struct Walk<'a> {
    scope: Scope<'a>,
    uses: Uses,
    saw_result: bool,
    /// Name of the loop variable inside `all`, `exists`, `map`, ...
    variable: Option<String>,
    /// That loop goes over `result`; using the whole of it at each turn would cost its length squared.
    loops_over_result: bool,
}

impl Walk<'_> {
    fn visit(&mut self, node: &mut IdedExpr) -> Result<(), String> {
        match &mut node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|e| self.visit(e)),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(inner) => self.comprehension(inner),
            Expr::Select(select) if matches!(self.scope, Scope::Document) => self.visit(&mut select.operand),
            Expr::Select(select) => Err(format!("`.{}`: `result` has no fields; let jsonPath pick the value", select.field)),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => Err("maps and structs have no meaning here".into()),
        }
    }

    fn name(&mut self, name: &str) -> Result<(), String> {
        let is_input = self.is_input(name);
        if is_input && self.loops_over_result {
            return Err(format!("in a loop over `{name}` use the loop variable, or `{name}[0]`"));
        }
        self.saw_result |= is_input;
        if is_input || name.starts_with('@') || self.variable.as_deref() == Some(name) {
            return Ok(());
        }
        Err(match self.scope {
            Scope::Names(names) => format!("`{name}` is not known; known are {}", listed(names)),
            Scope::Value | Scope::Document => format!("`{name}` is not known; the value is called `result`"),
        })
    }

    fn is_input(&self, name: &str) -> bool {
        match self.scope {
            Scope::Names(names) => names.contains(name),
            Scope::Value | Scope::Document => name == RESULT,
        }
    }

    /// Visits an operand that has to be a list.
    fn list(&mut self, node: &mut IdedExpr) -> Result<(), String> {
        if matches!(&node.expr, Expr::Ident(name) if name == RESULT) {
            self.uses.list = true;
        }
        self.visit(node)
    }

    fn call(&mut self, call: &mut CallExpr) -> Result<(), String> {
        let name = call.func_name.clone();
        if let Some(target) = &mut call.target {
            let known = METHODS.iter().find(|(method, _)| *method == name);
            return match known {
                Some((_, n)) if *n == call.args.len() => {
                    if name == "size" {
                        self.uses.handles_missing = true;
                        self.list(target)?;
                    } else {
                        self.visit(target)?;
                    }
                    call.args.iter_mut().try_for_each(|a| self.visit(a))
                }
                Some((_, n)) => Err(format!("`.{name}` takes {n} argument(s)")),
                None => Err(format!("`.{name}(...)` is not known")),
            };
        }
        if name == operators::INDEX {
            let whole = std::mem::take(&mut self.loops_over_result);
            let target = self.list(&mut call.args[0]);
            self.loops_over_result = whole;
            target?;
            return self.visit(&mut call.args[1]);
        }
        if name == operators::IN {
            self.visit(&mut call.args[0])?;
            self.list(&mut call.args[1])?;
            call.func_name = replaced(&name);
            return Ok(());
        }
        if MIXED.contains(&name.as_str()) {
            call.func_name = replaced(&name);
        } else if !PLAIN.contains(&name.as_str()) {
            return self.function(&name, call);
        }
        call.args.iter_mut().try_for_each(|a| self.visit(a))
    }

    fn function(&mut self, name: &str, call: &mut CallExpr) -> Result<(), String> {
        let Some((_, wanted)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
            return Err(format!("the function `{name}` is not known"));
        };
        let given = call.args.len();
        if given == 0 || (*wanted != usize::MAX && given != *wanted) {
            let wanted = if *wanted == usize::MAX { "at least 1".to_owned() } else { wanted.to_string() };
            return Err(format!("`{name}` takes {wanted} argument(s), not {given}"));
        }
        self.uses.handles_nan |= matches!(name, "isNaN" | "default");
        self.uses.handles_missing |= matches!(name, "size" | "len" | "default");
        let takes_list = matches!(name, "size" | "len") || (*wanted == usize::MAX && given == 1);
        if takes_list {
            return self.list(&mut call.args[0]);
        }
        call.args.iter_mut().try_for_each(|a| self.visit(a))
    }

    /// `all`, `exists`, `exists_one`, `map`, `filter`. The steps around the user's part are generated by the parser
    /// and keep CEL's own operators; nesting is refused, which bounds the cost.
    fn comprehension(&mut self, inner: &mut ComprehensionExpr) -> Result<(), String> {
        if self.variable.is_some() {
            return Err("`all`, `exists`, `map` and `filter` cannot be nested".into());
        }
        if inner.iter_var2.is_some() {
            return Err("loops with two variables are not supported".into());
        }
        let seen = std::mem::take(&mut self.saw_result);
        self.list(&mut inner.iter_range)?;
        let over_result = self.saw_result;
        self.saw_result |= seen;
        if self.is_input(&inner.iter_var) {
            return Err(format!("the loop variable needs another name than `{}`", inner.iter_var));
        }
        self.variable = Some(inner.iter_var.clone());
        self.loops_over_result = over_result;
        let accumulator = inner.accu_var.clone();
        let done = self.step(&mut inner.loop_step, &accumulator);
        (self.variable, self.loops_over_result) = (None, false);
        done
    }

    /// A generated step: the user's part is every operand that is not the accumulator.
    fn step(&mut self, node: &mut IdedExpr, accumulator: &str) -> Result<(), String> {
        match &mut node.expr {
            Expr::Ident(name) if name == accumulator => Ok(()),
            Expr::Call(call) if call.args.iter().any(|a| matches!(&a.expr, Expr::Ident(n) if n == accumulator)) => {
                call.args.iter_mut().try_for_each(|a| self.step(a, accumulator))
            }
            // The element that `map` and `filter` append.
            Expr::List(list) => list.elements.iter_mut().try_for_each(|e| match &e.expr {
                Expr::List(_) => Err("lists of lists have no meaning here".into()),
                Expr::Ident(name) if self.is_input(name) => Err("lists of lists have no meaning here".into()),
                _ => self.visit(e),
            }),
            _ => self.visit(node),
        }
    }
}
