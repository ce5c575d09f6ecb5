//! Just enough GraphQL to be strict: a query is parsed, its variables are put in, and an answer is cut to what it asked for.
//!
//! Strict where a real server is: undeclared variables, missing required variables, and fields that the answer does not
//! have are errors, so a client cannot rely on what it forgot to ask for. Knows no types and no schema; values of
//! enumerations are kept as text.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One field that is asked for, with its variables put in and its fragments spread out.
#[derive(Debug, Clone)]
pub struct Field {
    /// The alias, or else the name: what the answer is stored under.
    pub key: String,
    pub name: String,
    pub arguments: Map<String, Value>,
    pub fields: Vec<Field>,
}

impl Field {
    /// An argument that is given and not null.
    pub fn argument(&self, name: &str) -> Option<&Value> {
        self.arguments.get(name).filter(|value| !value.is_null())
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.argument(name)?.as_str().map(str::to_owned)
    }

    /// The first field with that name anywhere directly below.
    pub fn child(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Cuts an answer to the fields that were asked for.
    pub fn cut(&self, value: Value) -> Result<Value, String> {
        cut(&self.name, &self.fields, value)
    }
}

/// A request, ready to be answered.
#[derive(Debug, Clone)]
pub struct Operation {
    pub name: String,
    pub fields: Vec<Field>,
}

/// Reads a query and puts its variables in.
pub fn prepare(query: &str, operation_name: Option<&str>, variables: &Map<String, Value>) -> Result<Operation, String> {
    let document = Parser { tokens: tokens(query)?, at: 0 }.document()?;
    let operation = match operation_name {
        Some(name) => document.operations.iter().find(|operation| operation.name.as_deref() == Some(name)),
        None => document.operations.first(),
    };
    let operation = operation.ok_or("no such operation in the query")?;
    let mut known = Map::new();
    for variable in &operation.variables {
        let given = variables.get(&variable.name).cloned().or_else(|| variable.default.clone());
        if variable.required && given.as_ref().is_none_or(Value::is_null) {
            return Err(format!("variable `${}` is required", variable.name));
        }
        known.insert(variable.name.clone(), given.unwrap_or(Value::Null));
    }
    let fields = spread(&operation.selections, &document.fragments, &known, 0)?;
    Ok(Operation { name: operation.name.clone().unwrap_or_else(|| fields[0].name.clone()), fields })
}

/// Fields whose values are JSON of any shape: they have no subfields.
const OPAQUE: [&str; 2] = ["historyKeys", "cliVersionInfo"];

fn cut(name: &str, fields: &[Field], value: Value) -> Result<Value, String> {
    match value {
        opaque if OPAQUE.contains(&name) && fields.is_empty() => Ok(opaque),
        Value::Array(items) => items.into_iter().map(|item| cut(name, fields, item)).collect(),
        Value::Object(mut members) if !fields.is_empty() => {
            let mut kept = Map::new();
            for field in fields {
                let member = members
                    .get_mut(&field.name)
                    .ok_or_else(|| format!("cannot query field `{}` of `{name}`", field.name))?;
                kept.insert(field.key.clone(), field.cut(member.clone())?);
            }
            Ok(Value::Object(kept))
        }
        Value::Object(_) => Err(format!("field `{name}` must have a selection of subfields")),
        leaf if fields.is_empty() || leaf.is_null() => Ok(leaf),
        _ => Err(format!("field `{name}` has no subfields")),
    }
}

fn spread(
    selections: &[Selection],
    fragments: &BTreeMap<String, Vec<Selection>>,
    variables: &Map<String, Value>,
    depth: usize,
) -> Result<Vec<Field>, String> {
    if depth > 50 {
        return Err("fragments nest without end".to_owned());
    }
    let mut fields = Vec::new();
    for selection in selections {
        match selection {
            Selection::Field { key, name, arguments, condition, selections } => {
                let included = match condition {
                    Some((wanted, literal)) => literal.put_in(variables)?.as_bool() == Some(*wanted),
                    None => true,
                };
                if included {
                    let mut values = Map::new();
                    for (name, literal) in arguments {
                        values.insert(name.clone(), literal.put_in(variables)?);
                    }
                    let below = spread(selections, fragments, variables, depth + 1)?;
                    fields.push(Field { key: key.clone(), name: name.clone(), arguments: values, fields: below });
                }
            }
            Selection::Spread(name) => {
                let fragment = fragments.get(name).ok_or_else(|| format!("unknown fragment `{name}`"))?;
                fields.extend(spread(fragment, fragments, variables, depth + 1)?);
            }
            Selection::Inline(selections) => fields.extend(spread(selections, fragments, variables, depth + 1)?),
        }
    }
    Ok(fields)
}

struct Document {
    operations: Vec<ParsedOperation>,
    fragments: BTreeMap<String, Vec<Selection>>,
}

struct ParsedOperation {
    name: Option<String>,
    variables: Vec<Variable>,
    selections: Vec<Selection>,
}

struct Variable {
    name: String,
    required: bool,
    default: Option<Value>,
}

enum Selection {
    Field {
        key: String,
        name: String,
        arguments: Vec<(String, Literal)>,
        condition: Option<(bool, Literal)>,
        selections: Vec<Selection>,
    },
    Spread(String),
    Inline(Vec<Selection>),
}

enum Literal {
    Variable(String),
    Value(Value),
    List(Vec<Literal>),
    Object(Vec<(String, Literal)>),
}

impl Literal {
    fn put_in(&self, variables: &Map<String, Value>) -> Result<Value, String> {
        match self {
            Self::Variable(name) => {
                variables.get(name).cloned().ok_or_else(|| format!("variable `${name}` is not declared"))
            }
            Self::Value(value) => Ok(value.clone()),
            Self::List(items) => items.iter().map(|item| item.put_in(variables)).collect(),
            Self::Object(members) => members
                .iter()
                .map(|(name, literal)| Ok((name.clone(), literal.put_in(variables)?)))
                .collect::<Result<Map<_, _>, String>>()
                .map(Value::Object),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Number(String),
    Sign(char),
    Spread,
}

fn tokens(query: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = query.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_whitespace() || c == ',' || c == '\u{feff}' => {}
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            '"' => {
                let mut text = String::new();
                loop {
                    match rest.next() {
                        Some('"') => break,
                        Some('\\') => text.extend(rest.next()),
                        Some(c) => text.push(c),
                        None => return Err("unterminated string".to_owned()),
                    }
                }
                tokens.push(Token::Text(text));
            }
            '.' => {
                if rest.next() != Some('.') || rest.next() != Some('.') {
                    return Err("unexpected `.`".to_owned());
                }
                tokens.push(Token::Spread);
            }
            c if c.is_ascii_alphanumeric() || c == '_' || c == '-' => {
                let mut word = c.to_string();
                while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-')) {
                    word.push(c);
                }
                let number = c.is_ascii_digit() || c == '-';
                tokens.push(if number { Token::Number(word) } else { Token::Name(word) });
            }
            c => tokens.push(Token::Sign(c)),
        }
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn document(mut self) -> Result<Document, String> {
        let mut document = Document { operations: Vec::new(), fragments: BTreeMap::new() };
        while let Some(token) = self.tokens.get(self.at).cloned() {
            match token {
                Token::Sign('{') => {
                    let selections = self.selections()?;
                    document.operations.push(ParsedOperation { name: None, variables: Vec::new(), selections });
                }
                Token::Name(word) if word == "fragment" => {
                    self.at += 1;
                    let name = self.name()?;
                    self.name()?;
                    self.name()?;
                    document.fragments.insert(name, self.selections()?);
                }
                Token::Name(word) if word == "query" || word == "mutation" => {
                    self.at += 1;
                    let name = matches!(self.tokens.get(self.at), Some(Token::Name(_))).then(|| self.name());
                    let name = name.transpose()?;
                    let variables = self.variables()?;
                    document.operations.push(ParsedOperation { name, variables, selections: self.selections()? });
                }
                other => return Err(format!("unexpected {other:?}")),
            }
        }
        Ok(document)
    }

    fn next(&mut self) -> Result<Token, String> {
        let token = self.tokens.get(self.at).cloned().ok_or("the query ends too early")?;
        self.at += 1;
        Ok(token)
    }

    fn eat(&mut self, sign: char) -> bool {
        let found = self.tokens.get(self.at) == Some(&Token::Sign(sign));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: char) -> Result<(), String> {
        if self.eat(sign) { Ok(()) } else { Err(format!("expected `{sign}`, found {:?}", self.tokens.get(self.at))) }
    }

    fn name(&mut self) -> Result<String, String> {
        match self.next()? {
            Token::Name(name) => Ok(name),
            other => Err(format!("expected a name, found {other:?}")),
        }
    }

    fn variables(&mut self) -> Result<Vec<Variable>, String> {
        let mut variables = Vec::new();
        if self.eat('(') {
            while !self.eat(')') {
                self.expect('$')?;
                let name = self.name()?;
                self.expect(':')?;
                let required = self.type_is_required()?;
                let default = if self.eat('=') { Some(self.literal()?.put_in(&Map::new())?) } else { None };
                variables.push(Variable { name, required: required && default.is_none(), default });
            }
        }
        Ok(variables)
    }

    fn type_is_required(&mut self) -> Result<bool, String> {
        if self.eat('[') {
            self.type_is_required()?;
            self.expect(']')?;
        } else {
            self.name()?;
        }
        Ok(self.eat('!'))
    }

    fn selections(&mut self) -> Result<Vec<Selection>, String> {
        self.expect('{')?;
        let mut selections = Vec::new();
        while !self.eat('}') {
            if self.tokens.get(self.at) == Some(&Token::Spread) {
                self.at += 1;
                match self.tokens.get(self.at).cloned() {
                    Some(Token::Name(word)) if word != "on" => {
                        self.at += 1;
                        selections.push(Selection::Spread(word));
                    }
                    Some(Token::Name(_)) => {
                        self.at += 2;
                        selections.push(Selection::Inline(self.selections()?));
                    }
                    _ => selections.push(Selection::Inline(self.selections()?)),
                }
                continue;
            }
            let key = self.name()?;
            let name = if self.eat(':') { self.name()? } else { key.clone() };
            let arguments = self.arguments()?;
            let mut condition = None;
            while self.eat('@') {
                let wanted = self.name()? == "include";
                condition = self.arguments()?.into_iter().next().map(|(_, literal)| (wanted, literal));
            }
            let nested = self.tokens.get(self.at) == Some(&Token::Sign('{'));
            let below = if nested { self.selections()? } else { Vec::new() };
            selections.push(Selection::Field { key, name, arguments, condition, selections: below });
        }
        if selections.is_empty() { Err("an empty selection".to_owned()) } else { Ok(selections) }
    }

    fn arguments(&mut self) -> Result<Vec<(String, Literal)>, String> {
        let mut arguments = Vec::new();
        if self.eat('(') {
            while !self.eat(')') {
                let name = self.name()?;
                self.expect(':')?;
                arguments.push((name, self.literal()?));
            }
        }
        Ok(arguments)
    }

    fn literal(&mut self) -> Result<Literal, String> {
        Ok(match self.next()? {
            Token::Sign('$') => Literal::Variable(self.name()?),
            Token::Sign('[') => {
                let mut items = Vec::new();
                while !self.eat(']') {
                    items.push(self.literal()?);
                }
                Literal::List(items)
            }
            Token::Sign('{') => {
                let mut members = Vec::new();
                while !self.eat('}') {
                    let name = self.name()?;
                    self.expect(':')?;
                    members.push((name, self.literal()?));
                }
                Literal::Object(members)
            }
            Token::Text(text) => Literal::Value(Value::String(text)),
            Token::Number(number) => {
                Literal::Value(serde_json::from_str(&number).map_err(|_| format!("`{number}` is not a number"))?)
            }
            Token::Name(word) => Literal::Value(match word.as_str() {
                "null" => Value::Null,
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => Value::String(word),
            }),
            other => return Err(format!("expected a value, found {other:?}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(query: &str, variables: Value, answer: Value) -> Result<Value, String> {
        let operation = prepare(query, None, variables.as_object().unwrap())?;
        operation.fields[0].cut(answer)
    }

    #[test]
    fn answers_are_cut_to_what_was_asked_for() {
        let query = "fragment F on X { id ... on Y { more: name } }
            query Q($go: Boolean!, $limit: Int = 3) { thing(first: $limit, kind: RED) { ...F url @include(if: $go) } }";
        let answer = json!({"id": 1, "name": "n", "url": "u", "secret": 2});
        assert_eq!(run(query, json!({"go": false}), answer.clone()), Ok(json!({"id": 1, "more": "n"})));
        assert_eq!(run(query, json!({"go": true}), answer), Ok(json!({"id": 1, "more": "n", "url": "u"})));
        let field = prepare(query, Some("Q"), json!({"go": true}).as_object().unwrap()).unwrap().fields.remove(0);
        assert_eq!(Value::Object(field.arguments), json!({"first": 3, "kind": "RED"}));
    }

    #[test]
    fn what_a_real_server_refuses_is_refused() {
        let answer = json!({"id": 1});
        for (query, variables) in [
            ("query Q { thing { nothing } }", json!({})),
            ("query Q { thing }", json!({})),
            ("query Q { thing { id { deeper } } }", json!({})),
            ("query Q { thing(id: $id) { id } }", json!({"id": 1})),
            ("query Q($id: ID!) { thing(id: $id) { id } }", json!({"id": null})),
            ("query Q { thing { id }", json!({})),
        ] {
            assert!(run(query, variables, answer.clone()).is_err(), "{query}");
        }
    }
}
