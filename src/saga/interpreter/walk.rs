//! What becomes of an expression before it is run: paths become variables, and what would round a number, or
//! stumble over a null, becomes a function of our own.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};

use super::functions::{ADD, COMPUTABLE, DIVIDE, GET, HAS, HELD, IN_ORDER, MULTIPLY, SUBTRACT, TEXT};
use super::{FUNCTIONS, MAX_DEPTH, TYPES};
use crate::saga::expression::{ExpressionError, path_text};
use crate::saga::scope::ROOTS;

/// A variable that stands for a path.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) variable: String,
    pub(super) path: Vec<String>,
    pub(super) of: Use,
}

/// What of a path a variable holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// What is there, to be handed on as it stands.
    Value,
    /// What is there, to be computed with.
    Computable,
    /// What is there, or null.
    IfThere,
    /// Whether there is something.
    Presence,
}

/// Replaces paths by variables and refuses what is not allowed.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) slots: Vec<Slot>,
    /// Paths that are compared with a text, and the texts.
    pub(super) compared: Vec<(Vec<String>, String)>,
    /// Variables of the loop that the walk is in. They hide names in scope.
    bound: Vec<String>,
}

impl Walk {
    /// Walks through a node whose value is computed with, or else only handed on.
    pub(super) fn expression(
        &mut self,
        node: &mut IdedExpr,
        to_compute: bool,
        depth: usize,
    ) -> Result<(), ExpressionError> {
        if depth > MAX_DEPTH {
            return Err(ExpressionError::TooDeep);
        }
        if let Some(path) = self.path(node)? {
            node.expr = self.slot(path, if to_compute { Use::Computable } else { Use::Value });
            return Ok(());
        }
        if let Expr::Select(select) = &mut node.expr
            && select.test
        {
            node.expr = self.presence(select, depth)?;
            return Ok(());
        }
        self.parts(&mut node.expr, to_compute, depth + 1)?;
        if to_compute && may_be_written(&node.expr) {
            wrap(node, COMPUTABLE);
        }
        Ok(())
    }

    /// `has(...)`: false if the field is not there, or anything before it.
    fn presence(&mut self, select: &mut SelectExpr, depth: usize) -> Result<Expr, ExpressionError> {
        if let Some(mut path) = self.path(&select.operand)? {
            path.push(select.field.clone());
            return Ok(self.slot(path, Use::Presence));
        }
        let mut operand = std::mem::take(&mut *select.operand);
        self.if_there(&mut operand, depth + 1)?;
        Ok(call(HAS, vec![operand, text(&select.field)]))
    }

    /// A chain of fields and items that is null where one of them is not there.
    fn if_there(&mut self, node: &mut IdedExpr, depth: usize) -> Result<(), ExpressionError> {
        if depth > MAX_DEPTH {
            return Err(ExpressionError::TooDeep);
        }
        if let Some(path) = self.path(node)? {
            node.expr = self.slot(path, Use::IfThere);
            return Ok(());
        }
        let (mut operand, key) = match &mut node.expr {
            Expr::Select(select) if !select.test => {
                (std::mem::take(&mut *select.operand), text(&select.field))
            }
            Expr::Call(index) if index.func_name == operators::INDEX && index.args.len() == 2 => {
                let mut key = index.args.remove(1);
                self.expression(&mut key, true, depth + 1)?;
                (index.args.remove(0), key)
            }
            _ => return self.expression(node, false, depth),
        };
        self.if_there(&mut operand, depth + 1)?;
        node.expr = call(GET, vec![operand, key]);
        Ok(())
    }

    fn parts(&mut self, expr: &mut Expr, to_compute: bool, depth: usize) -> Result<(), ExpressionError> {
        match expr {
            Expr::Ident(_) | Expr::Literal(_) => Ok(()),
            Expr::Select(select) => self.expression(&mut select.operand, false, depth),
            Expr::Call(call) => self.call(call, to_compute, depth),
            Expr::List(list) => {
                list.elements.iter_mut().try_for_each(|item| self.expression(item, to_compute, depth))
            }
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expression(&mut entry.key, true, depth)?;
                    self.expression(&mut entry.value, to_compute, depth)
                }
                EntryExpr::StructField(_) => Err(ExpressionError::NoStructs),
            }),
            Expr::Comprehension(each) => {
                if !self.bound.is_empty() {
                    return Err(ExpressionError::NestedLoop);
                }
                self.expression(&mut each.iter_range, false, depth)?;
                wrap(&mut each.iter_range, IN_ORDER);
                self.expression(&mut each.accu_init, false, depth)?;
                self.bound = vec![each.iter_var.clone(), each.accu_var.clone()];
                self.bound.extend(each.iter_var2.clone());
                self.expression(&mut each.loop_cond, false, depth)?;
                self.expression(&mut each.loop_step, false, depth)?;
                self.expression(&mut each.result, false, depth)?;
                self.bound.clear();
                Ok(())
            }
            Expr::Struct(_) | Expr::Unspecified => Err(ExpressionError::NoStructs),
        }
    }

    fn call(&mut self, call: &mut CallExpr, to_compute: bool, depth: usize) -> Result<(), ExpressionError> {
        use operators::{
            CONDITIONAL, EQUALS, GREATER, GREATER_EQUALS, IN, INDEX, LESS, LESS_EQUALS, MODULO, NEGATE,
            NOT_EQUALS,
        };
        known_function(&call.func_name)?;
        let name = call.func_name.as_str();
        if let ([left, right], EQUALS | NOT_EQUALS | IN) = (call.args.as_slice(), name) {
            self.compare(left, right)?;
            self.compare(right, left)?;
        }
        // What a loop gathers is no operation of its author's, and the interpreter knows its form.
        let is_gathering =
            name == operators::ADD && call.args.first().is_some_and(|arg| self.is_gathered(arg));
        let operator = match name {
            operators::ADD if !is_gathering => Some(ADD),
            operators::SUBSTRACT => Some(SUBTRACT),
            operators::MULTIPLY => Some(MULTIPLY),
            operators::DIVIDE => Some(DIVIDE),
            _ => None,
        };
        let computes = |at: usize| match name {
            EQUALS | NOT_EQUALS | LESS | LESS_EQUALS | GREATER | GREATER_EQUALS | IN | NEGATE | MODULO => {
                true
            }
            "int" | "uint" | "bool" => true,
            CONDITIONAL => to_compute && at > 0,
            INDEX => at == 1,
            _ => false,
        };
        let computes: Vec<bool> = (0..call.args.len()).map(computes).collect();
        let around = match name {
            "string" => Some(TEXT),
            "double" => Some(HELD),
            _ => None,
        };
        if let Some(target) = &mut call.target {
            self.expression(target, false, depth)?;
        }
        for (arg, computes) in call.args.iter_mut().zip(computes) {
            self.expression(arg, computes, depth)?;
        }
        if let Some(around) = around {
            call.target.iter_mut().for_each(|target| wrap(target, around));
            call.args.iter_mut().for_each(|arg| wrap(arg, around));
        }
        if let Some(operator) = operator {
            operator.clone_into(&mut call.func_name);
        }
        Ok(())
    }

    /// Notes with which texts a path is compared.
    fn compare(&mut self, path: &IdedExpr, with: &IdedExpr) -> Result<(), ExpressionError> {
        let texts: Vec<_> = match &with.expr {
            Expr::List(list) => list.elements.iter().filter_map(text_of).collect(),
            _ => text_of(with).into_iter().collect(),
        };
        if !texts.is_empty()
            && let Some(path) = self.path(path)?
        {
            self.compared.extend(texts.into_iter().map(|text| (path.clone(), text)));
        }
        Ok(())
    }

    /// Whether it is the variable in which a loop gathers.
    fn is_gathered(&self, node: &IdedExpr) -> bool {
        matches!(&node.expr, Expr::Ident(name) if self.bound.get(1) == Some(name))
    }

    /// The path that a node spells, if it begins with a name in scope; an error if it begins with
    /// a name that means nothing. Not recursive, so that a long chain does no harm.
    pub(super) fn path(&self, node: &IdedExpr) -> Result<Option<Vec<String>>, ExpressionError> {
        let mut segments = Vec::new();
        let mut node = node;
        let root = loop {
            node = match &node.expr {
                Expr::Ident(name) => break name,
                Expr::Select(select) if !select.test => {
                    segments.push(select.field.clone());
                    &select.operand
                }
                Expr::Call(call) => match constant_index(call) {
                    Some((operand, field)) => {
                        segments.push(field.to_owned());
                        operand
                    }
                    None => return Ok(None),
                },
                _ => return Ok(None),
            };
        };
        if self.bound.contains(root) || (segments.is_empty() && TYPES.contains(&root.as_str())) {
            return Ok(None);
        }
        if !ROOTS.contains(&root.as_str()) {
            return Err(ExpressionError::UnknownName(root.clone()));
        }
        if segments.len() >= MAX_DEPTH {
            return Err(ExpressionError::TooDeep);
        }
        segments.push(root.clone());
        segments.reverse();
        Ok(Some(segments))
    }

    fn slot(&mut self, path: Vec<String>, of: Use) -> Expr {
        let text = path_text(&path);
        let variable = match of {
            Use::Value => text,
            Use::Computable => format!("={text}"),
            Use::IfThere => format!("?{text}"),
            Use::Presence => format!("has({text})"),
        };
        if self.slots.iter().all(|slot| slot.variable != variable) {
            self.slots.push(Slot { variable: variable.clone(), path, of });
        }
        Expr::Ident(variable)
    }
}

/// Whether it may be a number that is written otherwise than a double, or a null, or hold such.
fn may_be_written(expr: &Expr) -> bool {
    match expr {
        Expr::Ident(_) | Expr::Select(_) | Expr::Comprehension(_) => true,
        Expr::Call(call) => [operators::INDEX, ADD, "dyn"].contains(&call.func_name.as_str()),
        _ => false,
    }
}

fn call(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}

/// Makes a node the argument of a function.
fn wrap(node: &mut IdedExpr, function: &str) {
    let inner = std::mem::take(node);
    node.expr = call(function, vec![inner]);
}

fn text(text: &str) -> IdedExpr {
    let literal = LiteralValue::String(text.to_owned().into());
    IdedExpr { id: 0, expr: Expr::Literal(literal) }
}

/// The text that a node is.
fn text_of(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}

/// `operand["field"]`.
fn constant_index(call: &CallExpr) -> Option<(&IdedExpr, &str)> {
    match (call.func_name.as_str(), &call.target, call.args.as_slice()) {
        (operators::INDEX, None, [operand, index]) => match &index.expr {
            Expr::Literal(LiteralValue::String(field)) => Some((operand, field.inner())),
            _ => None,
        },
        _ => None,
    }
}

fn known_function(name: &str) -> Result<(), ExpressionError> {
    // Operators have names that no source can spell.
    let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
    if is_operator || FUNCTIONS.contains(&name) {
        Ok(())
    } else {
        Err(ExpressionError::UnknownFunction(name.to_owned()))
    }
}
