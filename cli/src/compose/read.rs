//! Typed reading of the tree: what a value must be, and the fault when it is something else.

use std::str::FromStr;

use super::fault::Position;
use super::report::Report;
use super::suggest::closest;
use super::support::{SECTIONS, Section, Support};
use super::tree::{Node, Value, join};

/// A value together with the key it was given for.
#[derive(Debug, Clone)]
pub(super) struct View<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
    /// The key's place; the value's own inside a list.
    pub(super) key_at: Position,
}

impl<'n> View<'n> {
    /// The whole document.
    pub(super) fn root(node: &'n Node) -> Self {
        Self {
            node,
            path: String::new(),
            key_at: node.at,
        }
    }

    /// Where a fault of the value is shown. Mappings and missing values are shown at their key.
    pub(super) fn at(&self) -> Position {
        match self.node.value {
            Value::Null | Value::Map(_) => self.key_at,
            Value::Text(_) | Value::Faulty | Value::List(_) => self.node.at,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// The text when it is one.
    pub(super) fn as_text(&self) -> Option<&'n str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::Faulty | Value::List(_) | Value::Map(_) => None,
        }
    }

    fn found(&self) -> &'static str {
        match self.node.value {
            Value::Null => "nothing",
            Value::Text(_) | Value::Faulty => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl Report<'_> {
    /// Records a fault of a value.
    pub(super) fn fault(&mut self, view: &View<'_>, message: impl Into<String>) {
        self.error(view.at(), &view.path, message);
    }

    /// Records a fault of a value together with what to do about it.
    pub(super) fn fault_hint(
        &mut self,
        view: &View<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.error_hint(view.at(), &view.path, message, hint);
    }

    /// Records a warning about a key.
    pub(super) fn warn_key(&mut self, view: &View<'_>, text: impl Into<String>) {
        self.warn(view.key_at, &view.path, text);
    }

    /// Records that a value is of the wrong kind.
    pub(super) fn wrong_kind(&mut self, view: &View<'_>, expected: &str) {
        if matches!(view.node.value, Value::Faulty) {
            return;
        }
        let name = last_key(&view.path);
        let text = if view.is_null() {
            format!("{name} has no value: expected {expected}")
        } else {
            format!("{name} must be {expected}, not {}", view.found())
        };
        self.fault(view, text);
    }

    /// The honoured keys of a mapping with a fixed set of keys. All others are reported.
    pub(super) fn section<'n>(
        &mut self,
        view: &View<'n>,
        section: &Section,
    ) -> Vec<(&'static str, View<'n>)> {
        let mut honoured = Vec::new();
        for (key, child) in self.mapping(view) {
            let Some(entry) = section.entry(key) else {
                if !key.starts_with("x-") || key == "x-dunlin" {
                    self.unknown_key(&child, key, section);
                }
                continue;
            };
            match entry.support {
                Support::Honoured(_) => honoured.push((entry.key, child)),
                Support::Ignored(instead) => {
                    let text = format!("{key} is not honoured yet and was ignored");
                    self.warn_key(&child, with_reason(text, instead));
                }
                Support::Refused(instead) => {
                    let text = format!("{key} is not supported");
                    self.error_hint(child.key_at, &child.path, text, instead);
                }
            }
        }
        honoured
    }

    fn unknown_key(&mut self, view: &View<'_>, key: &str, section: &Section) {
        let shown: String = key.chars().take(64).collect();
        let text = if section.path.starts_with('(') {
            format!("unknown key '{shown}' at the top level")
        } else {
            let parent = view.path.rsplit_once('.').map_or("", |(parent, _)| parent);
            format!("unknown key '{shown}' in {parent}")
        };
        let hint = match closest(key, section.keys.iter().map(|e| e.key)) {
            Some(near) => format!("did you mean '{near}'?"),
            None => match SECTIONS.iter().find(|s| s.entry(key).is_some()) {
                Some(other) if other.path.starts_with('(') => {
                    format!("'{key}' belongs to the top level of the file")
                }
                Some(other) => format!("'{key}' belongs under {}", other.path),
                None => "remove it, or start its name with 'x-' if other tools need it".to_owned(),
            },
        };
        self.error_hint(view.key_at, &view.path, text, hint);
    }

    /// The pairs of a mapping; a fault when it is none.
    pub(super) fn mapping<'n>(&mut self, view: &View<'n>) -> Vec<(&'n str, View<'n>)> {
        let Value::Map(pairs) = &view.node.value else {
            self.wrong_kind(view, "a mapping");
            return Vec::new();
        };
        let child = |pair: &'n super::tree::Pair| {
            let view = View {
                node: &pair.value,
                path: join(&view.path, &pair.key),
                key_at: pair.at,
            };
            (&*pair.key, view)
        };
        pairs.iter().map(child).collect()
    }

    /// The items of a list; a fault when it is none.
    pub(super) fn list<'n>(&mut self, view: &View<'n>) -> Vec<View<'n>> {
        let Value::List(items) = &view.node.value else {
            self.wrong_kind(view, "a list");
            return Vec::new();
        };
        let item = |(index, node): (usize, &'n std::rc::Rc<Node>)| View {
            node,
            path: format!("{}[{index}]", view.path),
            key_at: node.at,
        };
        items.iter().enumerate().map(item).collect()
    }

    /// A text, which may be empty. Text with a NUL byte reaches no process and is a fault.
    pub(super) fn text<'n>(&mut self, view: &View<'n>) -> Option<&'n str> {
        let Some(text) = view.as_text() else {
            self.wrong_kind(view, "a single value");
            return None;
        };
        if text.contains('\0') {
            self.fault(
                view,
                format!("{} has a NUL character", last_key(&view.path)),
            );
            return None;
        }
        Some(text)
    }

    /// A text that is not empty.
    pub(super) fn filled<'n>(&mut self, view: &View<'n>) -> Option<&'n str> {
        let text = self.text(view)?;
        if text.trim().is_empty() {
            self.fault(view, format!("{} is empty", last_key(&view.path)));
            return None;
        }
        Some(text)
    }

    /// A text that is not empty and stays on one line, as names and paths do.
    pub(super) fn line<'n>(&mut self, view: &View<'n>) -> Option<&'n str> {
        let text = self.filled(view)?;
        if text.chars().any(char::is_control) {
            let name = last_key(&view.path);
            self.fault(view, format!("{name} has a control character"));
            return None;
        }
        Some(text)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, view: &View<'_>) -> Option<bool> {
        self.parsed(view, |text| match text {
            "true" | "True" | "TRUE" | "yes" | "on" => Ok(true),
            "false" | "False" | "FALSE" | "no" | "off" => Ok(false),
            _ => Err(format!("'{text}' is neither 'true' nor 'false'")),
        })
    }

    /// Whether something exists already, outside of the project.
    pub(super) fn external(&mut self, view: &View<'_>) -> bool {
        if view.is_map() {
            let text = "external is 'true' or 'false'";
            self.fault_hint(view, text, "use 'name' beside it");
            return false;
        }
        self.flag(view).unwrap_or(false)
    }

    /// A whole number between two bounds.
    pub(super) fn number<T>(&mut self, view: &View<'_>, least: T, most: T) -> Option<T>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        self.parsed(view, |text| match text.parse() {
            Ok(value) if least <= value && value <= most => Ok(value),
            Ok(_) | Err(_) => Err(format!(
                "'{text}' is not a whole number from {least} to {most}"
            )),
        })
    }

    /// A value with a reader of its own.
    pub(super) fn parsed<T>(
        &mut self,
        view: &View<'_>,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.line(view)?;
        match read(text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.fault(view, message);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, view: &View<'_>, choices: &[(&str, T)]) -> Option<T> {
        let text = self.filled(view)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let name = last_key(&view.path);
        let message = format!("unknown {name} '{text}'");
        let hint = match closest(text, words.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("use one of {}", words.join(", ")),
        };
        self.fault_hint(view, message, hint);
        None
    }

    /// Pairs written as a mapping or as a list of `KEY=VALUE`; `None` where no value is given.
    pub(super) fn assignments<'n>(
        &mut self,
        view: &View<'n>,
    ) -> Vec<(String, Option<String>, View<'n>)> {
        let mut pairs: Vec<(String, Option<String>, View<'n>)> = Vec::new();
        let mut push = |report: &mut Self, key: &str, value: Option<&str>, item: View<'n>| {
            if key.is_empty() || key.contains(['\0', '=']) {
                report.fault(&item, format!("'{key}' is not a name"));
                return;
            }
            pairs.push((key.to_owned(), value.map(str::to_owned), item));
        };
        if view.is_list() {
            for item in self.list(view) {
                let Some(text) = self.filled(&item) else {
                    continue;
                };
                match text.split_once('=') {
                    Some((key, value)) => push(self, key, Some(value), item),
                    None => push(self, text, None, item),
                }
            }
        } else {
            for (key, item) in self.mapping(view) {
                if item.is_null() {
                    push(self, key, None, item);
                } else if let Some(text) = self.text(&item) {
                    push(self, key, Some(text), item);
                }
            }
        }
        pairs
    }

    /// A key that the table honours but the reader does not know: a fault of this program, which a
    /// test looks for.
    pub(super) fn unhandled(&mut self, view: &View<'_>) {
        self.fault(view, UNHANDLED);
    }
}

/// See [`Report::unhandled`].
pub(super) const UNHANDLED: &str = "this key is listed as honoured, but nothing reads it";

fn with_reason(text: String, reason: &str) -> String {
    if reason.is_empty() {
        text
    } else {
        format!("{text}: {reason}")
    }
}

/// The last key of a path, for messages.
pub(super) fn last_key(path: &str) -> &str {
    if path.is_empty() {
        "the file"
    } else {
        path.rsplit('.').next().unwrap_or(path)
    }
}
