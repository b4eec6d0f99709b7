//! GML (Himsolt, "GML: A portable Graph File Format", 1997): keys with numbers, texts or lists of
//! the same.

use super::Source;
use crate::world::error::WorldError;

/// How deep lists may lie in lists.
const MAX_DEPTH: usize = 16;
/// The most entries of one file.
const MAX_ENTRIES: usize = 8_000_000;

/// A key and its value.
#[derive(Debug, PartialEq)]
pub(super) struct Entry<'a> {
    key: &'a str,
    value: Value<'a>,
    pub(super) line: usize,
}

#[derive(Debug, PartialEq)]
enum Value<'a> {
    /// A number or a text.
    Text(&'a str),
    List(Vec<Entry<'a>>),
}

impl<'a> Entry<'a> {
    pub(super) fn list_named(&self, key: &str) -> Option<&[Entry<'a>]> {
        match &self.value {
            Value::List(list) if self.key == key => Some(list),
            _ => None,
        }
    }

    pub(super) fn text_named(&self, key: &str) -> Option<&'a str> {
        self.as_text().filter(|(name, _)| *name == key).map(|(_, text)| text)
    }

    pub(super) fn as_text(&self) -> Option<(&'a str, &'a str)> {
        match self.value {
            Value::Text(text) => Some((self.key, text)),
            Value::List(_) => None,
        }
    }
}

pub(super) fn parse(source: &Source) -> Result<Vec<Entry<'_>>, WorldError> {
    let mut tokens = Tokens { source, rest: &source.text, line: 1 };
    // The lists that are open, with the key and line of each but the outermost.
    let mut open = vec![("", 1, Vec::new())];
    let mut count = 0;
    loop {
        let token = tokens.next()?;
        let line = tokens.line;
        match token {
            Token::End if open.len() == 1 => break,
            Token::End => return Err(source.wrong(line, "the file ends within a list")),
            Token::Close => {
                let (Some((key, line, list)), Some(outer)) = (open.pop(), open.last_mut()) else {
                    return Err(source.wrong(line, "] without ["));
                };
                outer.2.push(Entry { key, value: Value::List(list), line });
            }
            Token::Word(key) if key.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                count += 1;
                if count > MAX_ENTRIES {
                    return Err(source.wrong(line, format!("more than {MAX_ENTRIES} entries")));
                }
                match tokens.next()? {
                    Token::Open if open.len() > MAX_DEPTH => {
                        let message = format!("lists lie more than {MAX_DEPTH} deep");
                        return Err(source.wrong(line, message));
                    }
                    Token::Open => open.push((key, line, Vec::new())),
                    Token::Word(text) | Token::Quoted(text) => {
                        if let Some((_, _, list)) = open.last_mut() {
                            list.push(Entry { key, value: Value::Text(text), line });
                        }
                    }
                    Token::Close | Token::End => {
                        return Err(source.wrong(line, format!("no GML: \"{key}\" has no value")));
                    }
                }
            }
            _ => {
                return Err(source.wrong(line, "no GML: a key is a word that begins with a letter"));
            }
        }
    }
    Ok(open.pop().map(|(_, _, list)| list).unwrap_or_default())
}

enum Token<'a> {
    Open,
    Close,
    Word(&'a str),
    Quoted(&'a str),
    End,
}

struct Tokens<'a> {
    source: &'a Source,
    rest: &'a str,
    /// Where the last token began.
    line: usize,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Result<Token<'a>, WorldError> {
        self.skip_blanks();
        let Some(first) = self.rest.chars().next() else { return Ok(Token::End) };
        match first {
            '[' => Ok(self.take(1, Token::Open)),
            ']' => Ok(self.take(1, Token::Close)),
            '"' => {
                let text = self.rest[1..].split_once('"').map(|(text, _)| text);
                let unclosed = || self.source.wrong(self.line, "a text is not closed by \"");
                let text = text.ok_or_else(unclosed)?;
                self.line += text.matches('\n').count();
                Ok(self.take(text.len() + 2, Token::Quoted(text)))
            }
            _ => {
                let end = |c: char| c.is_whitespace() || matches!(c, '[' | ']' | '"');
                let word = self.rest.split(end).next().unwrap_or_default();
                Ok(self.take(word.len(), Token::Word(word)))
            }
        }
    }

    fn take(&mut self, bytes: usize, token: Token<'a>) -> Token<'a> {
        self.rest = &self.rest[bytes..];
        token
    }

    /// White space, and lines that begin with `#`.
    fn skip_blanks(&mut self) {
        loop {
            let blanks = self.rest.len() - self.rest.trim_start().len();
            self.line += self.rest[..blanks].matches('\n').count();
            self.rest = &self.rest[blanks..];
            if !self.rest.starts_with('#') {
                return;
            }
            let comment = self.rest.find('\n').unwrap_or(self.rest.len());
            self.rest = &self.rest[comment..];
        }
    }
}
