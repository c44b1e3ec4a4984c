//! Finds the mutations of a file, and writes the file with a switch for each.

use std::collections::HashMap;
use std::ops::Range;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, ReturnType, Stmt, Type};

/// One mutation. Its name is unique, and stays the same when lines move.
#[derive(Clone, Debug)]
pub struct Mutant {
    pub number: usize,
    /// `file | function | kind | text`, and ` #2` for the second equal text.
    pub name: String,
    pub line: usize,
}

enum Edit {
    /// An expression and its replacements.
    Instead(Vec<(usize, String)>),
    /// A statement that the mutant leaves out.
    Without(usize),
    /// A body that the mutant leaves at once.
    Return(Vec<(usize, String)>),
}

pub struct Rewrite<'a> {
    text: &'a str,
    file: &'a str,
    functions: Vec<String>,
    edits: Vec<(Range<usize>, Edit)>,
    seen: HashMap<String, usize>,
    pub mutants: Vec<Mutant>,
    next: usize,
    skip: &'a dyn Fn(&str) -> bool,
}

impl<'a> Rewrite<'a> {
    /// Numbers begin at `first`. Mutants whose names `skip` knows are left out.
    pub fn new(file: &'a str, text: &'a str, first: usize, skip: &'a dyn Fn(&str) -> bool) -> Self {
        let mut this = Rewrite {
            text,
            file,
            functions: Vec::new(),
            edits: Vec::new(),
            seen: HashMap::new(),
            mutants: Vec::new(),
            next: first,
            skip,
        };
        this.visit_file(&syn::parse_file(text).expect("the library parses"));
        this.edits.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
        this
    }

    /// Returns the file with all switches.
    pub fn finish(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0..self.text.len(), &self.edits);
        out
    }

    fn write(&self, out: &mut String, range: Range<usize>, mut edits: &[(Range<usize>, Edit)]) {
        const ON: &str = "crate::mutant_switch::on";
        let mut at = range.start;
        while let Some((first, rest)) = edits.split_first() {
            let (place, edit) = first;
            out.push_str(&self.text[at..place.start]);
            let inner = rest.iter().take_while(|(next, _)| next.start < place.end).count();
            let (inside, behind) = rest.split_at(inner);
            match edit {
                Edit::Instead(others) => {
                    out.push('(');
                    for (number, other) in others {
                        *out += &format!("if {ON}({number}) {{/*{number}<*/{other}/*>*/}} else ");
                    }
                    *out += &format!("{{/*{}<*/", others[0].0);
                    self.write(out, place.clone(), inside);
                    *out += "/*>*/})";
                }
                Edit::Without(number) => {
                    *out += &format!("if !{ON}({number}) {{/*{number}<*/");
                    self.write(out, place.clone(), inside);
                    *out += "/*>*/}";
                }
                Edit::Return(others) => {
                    for (number, other) in others {
                        *out +=
                            &format!("/*{number}<*/if {ON}({number}) {{ return {other}; }}/*>*/");
                    }
                }
            }
            (at, edits) = (place.end, behind);
        }
        out.push_str(&self.text[at..range.end]);
    }

    fn source(&self, span: Span) -> &'a str {
        &self.text[span.byte_range()]
    }

    /// Returns the number of a new mutant, or `None` if it is left out.
    fn add(&mut self, span: Span, kind: &str, text: &str) -> Option<usize> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let function = self.functions.last()?;
        let mut name = format!("{} | {function} | {kind} | {text}", self.file);
        let count = self.seen.entry(name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            name += &format!(" #{count}");
        }
        if (self.skip)(&name) {
            return None;
        }
        self.next += 1;
        let number = self.next - 1;
        self.mutants.push(Mutant { number, name, line: span.start().line });
        Some(number)
    }

    fn instead(&mut self, expr: &Expr, kind: &str, others: Vec<String>) {
        let text = self.source(expr.span());
        let numbered = others.into_iter().filter_map(|other| {
            Some((self.add(expr.span(), kind, &format!("{text} -> {other}"))?, other))
        });
        let numbered: Vec<_> = numbered.collect();
        if !numbered.is_empty() {
            self.edits.push((expr.span().byte_range(), Edit::Instead(numbered)));
        }
    }

    fn function(&mut self, name: String, signature: &syn::Signature, body: &syn::Block) {
        if signature.constness.is_some() || name == "fmt" {
            return;
        }
        self.functions.push(name);
        let values = match &signature.output {
            ReturnType::Default => vec![""],
            ReturnType::Type(_, kind) => match self.source(kind.span()) {
                "bool" => vec!["true", "false"],
                "u8" | "u32" | "u64" | "usize" | "i32" | "i64" => vec!["0"],
                text if text.starts_with("Option<") => vec!["None"],
                text if text.contains("Result<()") => vec!["Ok(())"],
                _ => vec![],
            },
        };
        if !body.stmts.is_empty() {
            let brace = body.brace_token.span.open();
            let values = values
                .into_iter()
                .filter_map(|value| Some((self.add(brace, "return", value)?, value.to_string())));
            let values: Vec<_> = values.collect();
            let at = brace.byte_range().end;
            self.edits.push((at..at, Edit::Return(values)));
        }
        visit::visit_block(self, body);
        self.functions.pop();
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let text = list.tokens.to_string();
            text == "loom" || text.contains("test") && !text.starts_with("not")
        }
        meta => meta.path().is_ident("test"),
    })
}

/// Returns the kind and the replacement of an operator.
fn other(op: &BinOp) -> Option<(&'static str, &'static str)> {
    Some(match op {
        BinOp::Lt(_) => ("compare", "<="),
        BinOp::Le(_) => ("compare", "<"),
        BinOp::Gt(_) => ("compare", ">="),
        BinOp::Ge(_) => ("compare", ">"),
        BinOp::Eq(_) => ("compare", "!="),
        BinOp::Ne(_) => ("compare", "=="),
        BinOp::Add(_) => ("arithmetic", "-"),
        BinOp::Sub(_) => ("arithmetic", "+"),
        BinOp::AddAssign(_) => ("arithmetic", "-="),
        BinOp::SubAssign(_) => ("arithmetic", "+="),
        BinOp::And(_) => ("logic", "||"),
        BinOp::Or(_) => ("logic", "&&"),
        _ => return None,
    })
}

/// Returns true if the expression contains a `let` of a chain of conditions.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(both) => has_let(&both.left) || has_let(&both.right),
        _ => false,
    }
}

impl Rewrite<'_> {
    fn condition(&mut self, cond: &Expr) {
        if !has_let(cond) && !matches!(cond, Expr::Binary(_)) {
            self.instead(cond, "negate", vec![format!("!({})", self.source(cond.span()))]);
        }
    }
}

impl<'ast> Visit<'ast> for Rewrite<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            self.function(item.sig.ident.to_string(), &item.sig, &item.block);
        }
    }
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let Type::Path(kind) = &*item.self_ty else { return };
        let name = kind.path.segments.last().map(|last| last.ident.to_string());
        for member in &item.items {
            if let syn::ImplItem::Fn(method) = member
                && !is_for_tests(&item.attrs)
                && !is_for_tests(&method.attrs)
            {
                let name = format!("{}::{}", name.as_deref().unwrap_or(""), method.sig.ident);
                self.function(name, &method.sig, &method.block);
            }
        }
    }
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
    fn visit_stmt(&mut self, stmt: &'ast Stmt) {
        let span = stmt.span();
        match stmt {
            Stmt::Expr(Expr::MethodCall(_) | Expr::Call(_), Some(_)) => {
                if let Some(number) = self.add(span, "delete", self.source(span)) {
                    self.edits.push((span.byte_range(), Edit::Without(number)));
                }
            }
            Stmt::Expr(Expr::Assign(assign), Some(_)) if !matches!(*assign.left, Expr::Path(_)) => {
                if let Some(number) = self.add(span, "delete", self.source(span)) {
                    self.edits.push((span.byte_range(), Edit::Without(number)));
                }
            }
            _ => {}
        }
        visit::visit_stmt(self, stmt);
    }
    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::Binary(both) if !has_let(expr) => {
                if let Some((kind, op)) = other(&both.op) {
                    let sides = [both.left.span(), both.right.span()].map(|span| self.source(span));
                    self.instead(expr, kind, vec![format!("{} {op} {}", sides[0], sides[1])]);
                }
            }
            Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(number), .. }) => {
                let text = self.source(number.span());
                let less = number.base10_parse::<u64>().is_ok_and(|value| value > 1);
                let mut others = vec![format!("{text} + 1")];
                others.extend(less.then(|| format!("{text} - 1")));
                self.instead(expr, "constant", others);
            }
            Expr::Path(path) => {
                let last = path.path.segments.last().map(|last| last.ident.to_string());
                if let Some("SeqCst" | "AcqRel" | "Acquire" | "Release") = last.as_deref() {
                    let relaxed = "std::sync::atomic::Ordering::Relaxed".to_string();
                    self.instead(expr, "ordering", vec![relaxed]);
                }
            }
            Expr::If(branch) => self.condition(&branch.cond),
            Expr::While(turn) => self.condition(&turn.cond),
            // A length must be constant, and a fence cannot be relaxed.
            Expr::Repeat(repeat) => return self.visit_expr(&repeat.expr),
            Expr::Call(call) if self.source(call.func.span()).ends_with("fence") => return,
            Expr::Const(_) => return,
            _ => {}
        }
        visit::visit_expr(self, expr);
    }
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_type(&mut self, _: &'ast Type) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
}
