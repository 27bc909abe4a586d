//! Splits a command line into words, as a POSIX shell quotes them. Nothing is expanded.

/// A command line that cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsplittable {
    Quote(char),
    Backslash,
}

/// A command line in words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Words {
    pub(super) words: Vec<String>,
    /// The first unquoted character that only a shell would understand.
    pub(super) shell_syntax: Option<char>,
}

/// Splits at unquoted blanks; `'…'` is literal, `"…"` and `\` as in the shell.
pub(super) fn split(line: &str) -> Result<Words, Unsplittable> {
    let mut result = Words::default();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => result.words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(Unsplittable::Quote('\'')),
                        Some('\'') => break,
                        Some(c) => word.push(c),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                None => return Err(Unsplittable::Backslash),
                // A backslash at the end of a line joins it with the next.
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            c => {
                if matches!(c, '|' | '&' | ';' | '<' | '>') {
                    result.shell_syntax.get_or_insert(c);
                }
                word.get_or_insert_default().push(c);
            }
        }
    }
    result.words.extend(word);
    Ok(result)
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), Unsplittable> {
    loop {
        match chars.next() {
            None => return Err(Unsplittable::Quote('"')),
            Some('"') => return Ok(()),
            Some('\\') => match chars.next() {
                None => return Err(Unsplittable::Backslash),
                Some('\n') => {}
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some(c) => {
                    word.push('\\');
                    word.push(c);
                }
            },
            Some(c) => word.push(c),
        }
    }
}
