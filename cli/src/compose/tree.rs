//! YAML as a tree in which every node and key knows its place.
//!
//! Built from the events of `saphyr-parser`: the one maintained parser that follows YAML 1.2 and
//! gives a span with every event. Its own tree (`saphyr`) loses the spans of keys and expands
//! aliases by copying; `marked-yaml` refuses anchors. Here an alias shares the node it names, so
//! memory never grows with it, and a budget on the *expanded* size stops documents that would
//! unfold into billions of nodes when they are walked.

use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::fault::Position;
use super::interpolate::{Variables, interpolate};
use super::place::{dollar_place, event_place, fault_place};
use super::report::Report;

/// Deepest nesting. Compose needs ten levels; recursion over the tree stays shallow.
const MAX_DEPTH: usize = 64;

/// Most nodes after aliases and merge keys are expanded: 100 times a large real file.
const MAX_NODES: usize = 200_000;

/// Most bytes of text that interpolation may produce in one file.
const MAX_INTERPOLATED_BYTES: usize = 8 * 1024 * 1024;

/// A value and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
    /// Nodes in it, aliases expanded.
    size: usize,
    /// Levels below it, aliases expanded.
    height: usize,
}

/// A value.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Anything else that is neither list nor mapping, as written: types are decided by the key.
    Text(String),
    /// A text whose variables could not be replaced. That has been reported, and what it would have
    /// been is not known, so that nothing more is said about it.
    Faulty,
    List(Vec<Rc<Node>>),
    Map(Vec<Pair>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) key: Rc<str>,
    pub(super) at: Position,
    pub(super) value: Rc<Node>,
}

/// Loads the one document of a file. `None` when it could not be read to its end; the report says
/// why. Faults that leave the rest readable are reported too.
pub(super) fn load(text: &str, variables: &Variables, report: &mut Report) -> Option<Rc<Node>> {
    let mut loader = Loader {
        variables,
        report,
        stack: Vec::new(),
        anchors: BTreeMap::new(),
        root: None,
        spent: 0,
        interpolated: 0,
    };
    match loader.run(text) {
        Ok(()) => loader.root,
        Err(Fatal) => None,
    }
}

/// Reading cannot go on; the fault has been reported.
struct Fatal;

struct Loader<'a, 's> {
    variables: &'a Variables,
    report: &'a mut Report<'s>,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    /// Nodes so far, aliases expanded.
    spent: usize,
    interpolated: usize,
}

/// A collection that is not complete yet.
struct Frame {
    at: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Rc<Node>>),
    Map(Mapping),
}

#[derive(Default)]
struct Mapping {
    pairs: Vec<Pair>,
    known: BTreeMap<Rc<str>, Position>,
    /// The key whose value comes next.
    pending: Option<Pending>,
    /// What `<<` names, in order.
    merges: Vec<Rc<Node>>,
}

enum Pending {
    Key(Rc<str>, Position),
    Merge(Position),
    /// The key was faulty; its value is read and forgotten.
    Skip,
}

impl Loader<'_, '_> {
    fn run(&mut self, text: &str) -> Result<(), Fatal> {
        let mut parser = Parser::new_from_str(text);
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|e| self.syntax_fault(e.marker(), e.info()))?;
            let at = event_place(self.report.source, span);
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        let text = "the file has more than one YAML document";
                        let hint = "put each document into a file of its own";
                        self.report.error_hint(at, "", text, hint);
                        return Err(Fatal);
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.check_tag(at, tag.as_deref());
                    self.scalar(at, text.into_owned(), style, anchor, tag.as_deref())?;
                }
                Event::Alias(anchor) => self.alias(at, anchor)?,
                Event::SequenceStart(anchor, tag) => {
                    self.check_tag(at, tag.as_deref());
                    self.open(at, anchor, Content::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.check_tag(at, tag.as_deref());
                    self.open(at, anchor, Content::Map(Mapping::default()))?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(())
    }

    fn syntax_fault(&mut self, marker: &saphyr_parser::Marker, info: &str) -> Fatal {
        let (at, tab) = fault_place(self.report.source, marker);
        let path = self.path();
        let text = format!("this is not valid YAML: {info}");
        if tab {
            let hint = "YAML is indented with spaces, never with tabs";
            self.report.error_hint(at, &path, text, hint);
        } else {
            self.report.error(at, &path, text);
        }
        Fatal
    }

    fn check_tag(&mut self, at: Position, tag: Option<&Tag>) {
        let Some(tag) = tag.filter(|t| !t.is_yaml_core_schema()) else {
            return;
        };
        let path = self.path();
        let text = format!("the tag {tag} is not supported");
        if matches!(tag.suffix.as_str(), "reset" | "override") {
            let hint = "it only has a meaning when several files are merged";
            self.report.error_hint(at, &path, text, hint);
        } else {
            self.report.error(at, &path, text);
        }
    }

    fn scalar(
        &mut self,
        at: Position,
        text: String,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
    ) -> Result<(), Fatal> {
        let plain = style == ScalarStyle::Plain;
        if self.awaits_key() {
            self.spend(at, 1)?;
            self.key(at, Rc::from(text), plain);
            return Ok(());
        }
        let is_text = tag.is_some_and(|t| t.suffix == "str");
        let null =
            plain && !is_text && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL");
        let value = if null {
            Value::Null
        } else {
            self.interpolated(at, text)?
                .map_or(Value::Faulty, Value::Text)
        };
        self.attach(at, anchor, value)
    }

    /// The text with its variables replaced; `None` when they cannot be.
    fn interpolated(&mut self, at: Position, text: String) -> Result<Option<String>, Fatal> {
        if !text.contains('$') {
            return Ok(Some(text));
        }
        let mut unset = Vec::new();
        let result = interpolate(&text, self.variables, &mut unset);
        let path = self.path();
        for finding in unset {
            let place = dollar_place(self.report.source, at, &text, finding.dollar);
            self.report.warn(place, &path, finding.text);
        }
        let value = match result {
            Ok(value) => value,
            Err(finding) => {
                let place = dollar_place(self.report.source, at, &text, finding.dollar);
                match finding.hint {
                    Some(hint) => self.report.error_hint(place, &path, finding.text, hint),
                    None => self.report.error(place, &path, finding.text),
                }
                return Ok(None);
            }
        };
        self.interpolated += value.len();
        if self.interpolated > MAX_INTERPOLATED_BYTES {
            let limit = MAX_INTERPOLATED_BYTES / (1024 * 1024);
            let text = format!("variables make the file grow beyond {limit} MiB");
            self.report.error(at, &path, text);
            return Err(Fatal);
        }
        Ok(Some(value))
    }

    fn alias(&mut self, at: Position, anchor: usize) -> Result<(), Fatal> {
        let Some(node) = self.anchors.get(&anchor).map(Rc::clone) else {
            let path = self.path();
            let text = "this alias stands inside the value that it names";
            self.report.error(at, &path, text);
            return Err(Fatal);
        };
        self.spend(at, node.size)?;
        if self.stack.len() + node.height > MAX_DEPTH {
            return Err(self.too_deep(at));
        }
        if self.awaits_key() {
            match &node.value {
                Value::Text(text) => self.key(at, Rc::from(text.as_str()), false),
                Value::Null | Value::Faulty | Value::List(_) | Value::Map(_) => self.faulty_key(at),
            }
            return Ok(());
        }
        self.insert(node)
    }

    fn open(&mut self, at: Position, anchor: usize, content: Content) -> Result<(), Fatal> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.too_deep(at));
        }
        self.stack.push(Frame {
            at,
            anchor,
            content,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fatal> {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        let value = match frame.content {
            Content::List(items) => Value::List(items),
            Content::Map(mapping) => Value::Map(self.merged(frame.at, mapping)?),
        };
        if self.awaits_key() {
            self.faulty_key(frame.at);
            return Ok(());
        }
        self.attach(frame.at, frame.anchor, value)
    }

    /// The mapping's own pairs, then those of merge keys that it lacks.
    fn merged(&mut self, at: Position, mapping: Mapping) -> Result<Vec<Pair>, Fatal> {
        let Mapping {
            mut pairs,
            mut known,
            merges,
            ..
        } = mapping;
        for base in &merges {
            let Value::Map(inherited) = &base.value else {
                continue;
            };
            self.spend(at, base.size)?;
            for pair in inherited {
                if !known.contains_key(&pair.key) {
                    known.insert(Rc::clone(&pair.key), pair.at);
                    pairs.push(pair.clone());
                }
            }
        }
        Ok(pairs)
    }

    fn attach(&mut self, at: Position, anchor: usize, value: Value) -> Result<(), Fatal> {
        self.spend(at, 1)?;
        let children: Vec<&Rc<Node>> = match &value {
            Value::Null | Value::Text(_) | Value::Faulty => Vec::new(),
            Value::List(items) => items.iter().collect(),
            Value::Map(pairs) => pairs.iter().map(|p| &p.value).collect(),
        };
        let size = children
            .iter()
            .fold(1_usize, |sum, c| sum.saturating_add(c.size + 1));
        let height = children.iter().map(|c| c.height).max().unwrap_or(0) + 1;
        let node = Rc::new(Node {
            at,
            value,
            size,
            height,
        });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.insert(node)
    }

    fn insert(&mut self, node: Rc<Node>) -> Result<(), Fatal> {
        let pending = match self.stack.last_mut().map(|f| &mut f.content) {
            None => {
                self.root = Some(node);
                return Ok(());
            }
            Some(Content::List(items)) => {
                items.push(node);
                return Ok(());
            }
            Some(Content::Map(mapping)) => mapping.pending.take(),
        };
        match pending {
            Some(Pending::Key(key, at)) => self.pair(key, at, node),
            Some(Pending::Merge(at)) => self.merge(at, node),
            Some(Pending::Skip) | None => {}
        }
        Ok(())
    }

    fn pair(&mut self, key: Rc<str>, at: Position, value: Rc<Node>) {
        let Some(mapping) = self.mapping() else {
            return;
        };
        if let Some(first) = mapping.known.get(&key).copied() {
            let path = join(&self.path(), &key);
            let text = format!("the key '{key}' is given twice");
            let related = (first, "it is given first");
            self.report.error_related(at, &path, text, related);
            return;
        }
        mapping.known.insert(Rc::clone(&key), at);
        mapping.pairs.push(Pair { key, at, value });
    }

    fn merge(&mut self, at: Position, node: Rc<Node>) {
        let bases = match &node.value {
            Value::Map(_) => vec![node],
            Value::List(items) => items.clone(),
            Value::Null | Value::Text(_) | Value::Faulty => vec![node],
        };
        for base in bases {
            if !matches!(base.value, Value::Map(_)) {
                let path = self.path();
                let text = "'<<' takes a mapping or a list of mappings";
                self.report.error(at, &path, text);
            } else if let Some(mapping) = self.mapping() {
                mapping.merges.push(base);
            }
        }
    }

    fn key(&mut self, at: Position, key: Rc<str>, plain: bool) {
        let pending = if plain && &*key == "<<" {
            Pending::Merge(at)
        } else {
            Pending::Key(key, at)
        };
        if let Some(mapping) = self.mapping() {
            mapping.pending = Some(pending);
        }
    }

    fn faulty_key(&mut self, at: Position) {
        let path = self.path();
        let text = "a key must be text, not a list or a mapping";
        self.report.error(at, &path, text);
        if let Some(mapping) = self.mapping() {
            mapping.pending = Some(Pending::Skip);
        }
    }

    fn mapping(&mut self) -> Option<&mut Mapping> {
        match self.stack.last_mut().map(|f| &mut f.content) {
            Some(Content::Map(mapping)) => Some(mapping),
            Some(Content::List(_)) | None => None,
        }
    }

    fn awaits_key(&mut self) -> bool {
        self.mapping().is_some_and(|m| m.pending.is_none())
    }

    fn spend(&mut self, at: Position, nodes: usize) -> Result<(), Fatal> {
        self.spent = self.spent.saturating_add(nodes);
        if self.spent <= MAX_NODES {
            return Ok(());
        }
        let path = self.path();
        let text = format!("with its aliases expanded the file has more than {MAX_NODES} values");
        self.report.error(at, &path, text);
        Err(Fatal)
    }

    fn too_deep(&mut self, at: Position) -> Fatal {
        let path = self.path();
        let text = format!("values are nested more than {MAX_DEPTH} deep");
        self.report.error(at, &path, text);
        Fatal
    }

    /// The key path of the value that is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.stack {
            match &frame.content {
                Content::List(items) => path.push_str(&format!("[{}]", items.len())),
                Content::Map(mapping) => match &mapping.pending {
                    Some(Pending::Key(key, _)) => path = join(&path, key),
                    Some(Pending::Merge(_)) => path = join(&path, "<<"),
                    Some(Pending::Skip) | None => {}
                },
            }
        }
        path
    }
}

/// A key path and one more key.
pub(super) fn join(path: &str, key: &str) -> String {
    // Keys of a hostile file may be long; a path is for reading.
    let key: String = key.chars().take(64).collect();
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}
