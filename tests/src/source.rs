//! The workspace's source code as data, for the tests that guard its structure: which modules a crate has and which of them use
//! which, which types are declared where, and what the doc comments say. It reads tokens and not the whole grammar: `rustfmt`ed
//! code is enough for it.

use crate::programs::root;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A crate of the workspace: its name in reports and the root file of its module tree.
pub const CRATES: [(&str, &str); 4] = [
    ("experiments", "experiments/src/lib.rs"),
    ("agent", "agent/src/lib.rs"),
    ("controller", "controller/src/lib.rs"),
    ("controller's program", "controller/src/main.rs"),
];

/// Every file whose name ends so below a folder, sorted, without what is built or installed.
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_skipped = ["target", ".git", ".venv", "__pycache__"]
            .iter()
            .any(|skipped| name == *skipped);
        if is_skipped {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The text of a file.
///
/// # Panics
/// It cannot be read.
pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A path below the workspace's root, for reports.
pub fn short(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// The words and signs of a source file, without comments, literals and items under `#[cfg(test)]`.
pub fn tokens(text: &str) -> Vec<String> {
    without_tests(lex(text))
}

fn lex(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 128;
    while at < bytes.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"//") {
            at += rest
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") {
            at += text[at..].find("*/").map_or(rest.len(), |end| end + 2);
        } else if rest[0] == b'"' {
            at += end_of_string(rest);
        } else if rest[0] == b'\'' {
            at += end_of_quote(rest);
        } else if is_word(rest[0]) {
            let length = rest
                .iter()
                .position(|byte| !is_word(*byte))
                .unwrap_or(rest.len());
            let word = &text[at..at + length];
            at += length;
            let hashes = bytes[at..].iter().take_while(|byte| **byte == b'#').count();
            let next = bytes.get(at + hashes);
            if ["r", "br", "cr"].contains(&word) && next == Some(&b'"') {
                let end = format!("\"{}", "#".repeat(hashes));
                let body = at + hashes + 1;
                at = text[body..]
                    .find(&end)
                    .map_or(bytes.len(), |place| body + place + end.len());
            } else if !(["b", "c"].contains(&word) && matches!(next, Some(b'"' | b'\''))) {
                found.push(word.to_owned());
            }
        } else {
            if !rest[0].is_ascii_whitespace() {
                found.push((rest[0] as char).to_string());
            }
            at += 1;
        }
    }
    found
}

/// How many bytes a string literal has that begins here.
fn end_of_string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// How many bytes a character literal has that begins here; one where it is a lifetime.
fn end_of_quote(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        let end = rest[3..].iter().position(|byte| *byte == b'\'');
        return end.map_or(rest.len(), |end| end + 4);
    }
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(6)]).into_owned();
    let length = text.chars().next().map_or(0, char::len_utf8);
    if rest.get(1 + length) == Some(&b'\'') {
        length + 2
    } else {
        1
    }
}

/// Leaves out every item under `#[cfg(test)]`, to its closing brace or semicolon.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let (mut kept, mut at) = (Vec::new(), 0);
    let marker = ["#", "[", "cfg", "(", "test", ")", "]"];
    while at < tokens.len() {
        if tokens[at..].len() >= marker.len()
            && tokens[at..].iter().zip(marker).all(|(a, b)| a == b)
        {
            let mut depth = 0_usize;
            for token in &tokens[at + marker.len()..] {
                at += 1;
                match token.as_str() {
                    "{" | "(" | "[" => depth += 1,
                    "}" | ")" | "]" => depth -= 1,
                    _ => {}
                }
                if depth == 0 && matches!(token.as_str(), "}" | ";") {
                    break;
                }
            }
            at += marker.len();
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// A path in the module tree: its segments from the crate's root, which has none.
pub type ModulePath = Vec<String>;

/// The modules of one crate, tests left out.
pub struct Modules {
    files: BTreeMap<ModulePath, Vec<String>>,
    /// What a module imports: the name that it has there, and the path that it stands for.
    imports: BTreeMap<ModulePath, BTreeMap<String, ModulePath>>,
}

impl Modules {
    /// Reads the crate whose root file this is, relative to the workspace.
    pub fn read(root_file: &str) -> Self {
        let mut modules = Modules {
            files: BTreeMap::new(),
            imports: BTreeMap::new(),
        };
        modules.add(&root().join(root_file), Vec::new());
        let imports = modules.files.iter().map(|(module, tokens)| {
            let named = uses(tokens)
                .into_iter()
                .map(|(name, path)| (name, absolute(module, &path, &modules.files)))
                .collect();
            (module.clone(), named)
        });
        modules.imports = imports.collect();
        modules
    }

    fn add(&mut self, file: &Path, module: ModulePath) {
        let tokens = tokens(&text(file));
        let is_root = ["lib.rs", "main.rs", "mod.rs"]
            .iter()
            .any(|name| file.ends_with(name));
        let folder = match is_root {
            true => file.parent().expect("a file is in a folder").to_owned(),
            false => file.with_extension(""),
        };
        for words in tokens.windows(3) {
            if words[0] != "mod" || words[2] != ";" {
                continue;
            }
            let places = [
                folder.join(format!("{}.rs", words[1])),
                folder.join(&words[1]).join("mod.rs"),
            ];
            if let Some(next) = places.iter().find(|place| place.exists()) {
                let child = [&module[..], &[words[1].clone()]].concat();
                self.add(next, child);
            }
        }
        self.files.insert(module, tokens);
    }

    /// The modules, by their paths.
    pub fn paths(&self) -> impl Iterator<Item = &ModulePath> {
        self.files.keys()
    }

    /// The tokens of a module's file.
    pub fn tokens_of(&self, module: &ModulePath) -> &[String] {
        &self.files[module]
    }

    /// The module in which what a path stands for is declared. Imports are followed, so that what a module takes in from another and
    /// hands on is the other's.
    fn home(&self, path: &[String], depth: usize) -> ModulePath {
        let mut module = Vec::new();
        for (index, segment) in path.iter().enumerate() {
            let child = [&module[..], std::slice::from_ref(segment)].concat();
            if self.files.contains_key(&child) {
                module = child;
                continue;
            }
            let known = self
                .imports
                .get(&module)
                .and_then(|names| names.get(segment));
            if let (Some(known), true) = (known, depth < 16) {
                return self.home(&[known, &path[index + 1..]].concat(), depth + 1);
            }
            break;
        }
        module
    }

    /// The modules that each module uses.
    pub fn used(&self) -> BTreeMap<&ModulePath, BTreeSet<ModulePath>> {
        let used = self.files.iter().map(|(module, tokens)| {
            let paths = uses(tokens).into_iter().map(|(_, path)| path);
            let homes = paths
                .chain(inline_paths(tokens))
                .map(|path| self.home(&absolute(module, &path, &self.files), 0))
                .filter(|home| home != module);
            (module, homes.collect())
        });
        used.collect()
    }

    /// The circles: for each module, those of its children that use each other around, each with all that is below it.
    pub fn circles(&self) -> Vec<String> {
        let mut edges: BTreeMap<ModulePath, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (from, homes) in self.used() {
            for to in homes {
                let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
                    let level = edges.entry(from[..common].to_vec()).or_default();
                    level.entry(a.clone()).or_default().insert(b.clone());
                }
            }
        }
        let mut found = Vec::new();
        for (parent, level) in &edges {
            let mut seen = BTreeSet::new();
            for name in level.keys() {
                let circle: BTreeSet<&String> = reachable(name, level)
                    .into_iter()
                    .filter(|other| reachable(other, level).contains(name))
                    .collect();
                if circle.len() > 1 && seen.insert(circle.clone()) {
                    let names: Vec<&str> = circle.iter().map(|name| name.as_str()).collect();
                    let place: String = parent.iter().map(|name| format!("{name}::")).collect();
                    found.push(format!("{place}{{{}}}", names.join(", ")));
                }
            }
        }
        found
    }
}

fn reachable<'a>(
    from: &'a String,
    edges: &'a BTreeMap<String, BTreeSet<String>>,
) -> BTreeSet<&'a String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(edges.get(next).into_iter().flatten());
        }
    }
    found
}

/// Makes a path absolute: `crate`, `self` and `super` are resolved, and so is one that begins with a child of the module. What is left
/// begins with another crate, or with something that is in scope, and stays where it is.
fn absolute(
    module: &ModulePath,
    path: &[String],
    files: &BTreeMap<ModulePath, Vec<String>>,
) -> ModulePath {
    let (mut base, mut rest) = (module.clone(), path);
    match path.first().map(String::as_str) {
        Some("crate") => path[1..].to_vec(),
        Some("self" | "super") => {
            while let Some(word @ ("self" | "super")) = rest.first().map(String::as_str) {
                if word == "super" {
                    base.pop();
                }
                rest = &rest[1..];
            }
            [&base[..], rest].concat()
        }
        Some(first) => {
            let child = [&base[..], &[first.to_owned()]].concat();
            match files.contains_key(&child) {
                true => [&base[..], rest].concat(),
                false => vec!["<elsewhere>".to_owned()],
            }
        }
        None => Vec::new(),
    }
}

/// What the `use` items of these tokens bring in: each name with its path.
fn uses(tokens: &[String]) -> Vec<(String, ModulePath)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if tokens[at] == "use" {
            let end = tokens[at..].iter().position(|token| token == ";");
            let end = at + end.unwrap_or(tokens.len() - at);
            tree(&tokens[at + 1..end], &[], &mut found);
            at = end;
        }
        at += 1;
    }
    found
}

/// One tree of a `use` item, below a prefix.
fn tree(tokens: &[String], prefix: &[String], found: &mut Vec<(String, ModulePath)>) {
    let mut path = prefix.to_vec();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            ":" => {}
            "{" => {
                let (mut depth, mut start) = (0, at + 1);
                for place in at..tokens.len() {
                    match tokens[place].as_str() {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    let ends = (tokens[place] == "," && depth == 1) || depth == 0;
                    if ends {
                        if start < place {
                            tree(&tokens[start..place], &path, found);
                        }
                        start = place + 1;
                    }
                    if depth == 0 {
                        break;
                    }
                }
                return;
            }
            "as" => {
                let name = tokens.get(at + 1).cloned().unwrap_or_default();
                found.push((name, path));
                return;
            }
            "self" if !path.is_empty() => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
    }
    if let Some(name) = path.last() {
        found.push((name.clone(), path));
    }
}

/// The paths that begin with `crate`, `self` or `super`, or with a name before `::`, outside `use` items.
fn inline_paths(tokens: &[String]) -> Vec<ModulePath> {
    let (mut found, mut at, mut in_use) = (Vec::new(), 0, false);
    while at < tokens.len() {
        match tokens[at].as_str() {
            "use" => in_use = true,
            ";" => in_use = false,
            _ => {}
        }
        let is_name = |token: &String| {
            token.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        };
        let follows = |at: usize| {
            tokens.get(at).is_some_and(|token| token == ":")
                && tokens.get(at + 1).is_some_and(|token| token == ":")
        };
        if !in_use && is_name(&tokens[at]) && follows(at + 1) {
            let mut path = vec![tokens[at].clone()];
            at += 1;
            while follows(at) && tokens.get(at + 2).is_some_and(is_name) {
                path.push(tokens[at + 2].clone());
                at += 3;
            }
            found.push(path);
        } else {
            at += 1;
        }
    }
    found
}

/// The types that these tokens declare: structures, enumerations, unions, traits, and aliases outside `impl` and `trait` bodies.
pub fn types(tokens: &[String]) -> Vec<String> {
    let (mut found, mut depth, mut bodies) = (Vec::new(), 0, Vec::new());
    let mut is_body_next = false;
    for (at, token) in tokens.iter().enumerate() {
        let name = || tokens.get(at + 1).cloned().unwrap_or_default();
        match token.as_str() {
            "{" => {
                depth += 1;
                if std::mem::take(&mut is_body_next) {
                    bodies.push(depth);
                }
            }
            "}" => {
                if bodies.last() == Some(&depth) {
                    bodies.pop();
                }
                depth -= 1;
            }
            "struct" | "enum" => found.push(name()),
            "union" if tokens.get(at + 2).is_some_and(|next| next == "{") => found.push(name()),
            "trait" => {
                found.push(name());
                is_body_next = true;
            }
            // An `impl` in a type, as in `-> impl Trait`, has no body of its own before a `{` or `;`.
            "impl" => {
                let before = at.checked_sub(1).map(|before| tokens[before].as_str());
                is_body_next |= matches!(before, None | Some(";" | "}" | "]" | "unsafe"));
            }
            "type" if bodies.is_empty() => found.push(name()),
            _ => {}
        }
    }
    found.retain(|name| name.starts_with(char::is_uppercase));
    found
}

/// The doc comments on items of a file, each as one text, with the line where it begins.
pub fn doc_comments(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for (number, line) in text.lines().enumerate() {
        let doc = line.trim_start().strip_prefix("///");
        match (doc, found.last_mut()) {
            (Some(doc), Some((_, text))) if continues => {
                text.push(' ');
                text.push_str(doc.trim());
            }
            (Some(doc), _) => found.push((number + 1, doc.trim().to_owned())),
            (None, _) => {}
        }
        continues = doc.is_some();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn tokens_without_comments_literals_and_tests_are_those_of_the_code() {
        let text = "use a; // b\nfn c<'x>() { \"d { \\\" e\"; 'f'; r#\"g \" h\"#; b\"i\" }\n#[cfg(test)]\nmod tests { fn j() {} }\nfn k() {}";
        let wanted = "use a ; fn c < x > ( ) { ; ; ; } fn k ( ) { }";
        assert_eq!(tokens(text), words(wanted));
    }

    #[test]
    fn use_trees_with_braces_and_renames_are_taken_apart() {
        let found = uses(&lex(
            "pub use crate::a::{self, B, c::{D as E, F}}; use super::g;",
        ));
        let shown: Vec<String> = found
            .iter()
            .map(|(name, path)| format!("{name}={}", path.join("::")))
            .collect();
        assert_eq!(
            shown,
            [
                "a=crate::a",
                "B=crate::a::B",
                "E=crate::a::c::D",
                "F=crate::a::c::F",
                "g=super::g"
            ]
        );
    }

    #[test]
    fn modules_that_use_each_other_are_a_circle() {
        let module = |name: &str| vec![name.to_owned()];
        let file = |path: ModulePath, text: &str| (path, lex(text));
        let files = BTreeMap::from([
            file(vec![], "mod a; mod b; mod c; use a::X as Y;"),
            file(module("a"), "use crate::b::Z; struct X;"),
            file(module("b"), "fn f() { crate::c::g(); } use super::c::h;"),
            file(module("c"), "use super::Y;"),
        ]);
        let imports = files
            .iter()
            .map(|(path, tokens)| {
                let named = uses(tokens).into_iter();
                let named = named.map(|(name, to)| (name, absolute(path, &to, &files)));
                (path.clone(), named.collect())
            })
            .collect();
        let modules = Modules { files, imports };
        assert_eq!(modules.circles(), ["{a, b, c}"]);
    }

    #[test]
    fn types_of_bodies_are_not_declared_anew() {
        let text = "struct A; impl B for A { type C = u8; } trait D { type E; } type F = u8; fn g() -> impl H { enum I {} }";
        assert_eq!(types(&lex(text)), ["A", "D", "F", "I"]);
    }

    #[test]
    fn doc_comment_of_several_lines_is_one() {
        let text = "/// One\n/// two.\nfn a() {}\n    /// Three.\n";
        let wanted = [(1, "One two.".to_owned()), (4, "Three.".to_owned())];
        assert_eq!(doc_comments(text), wanted);
    }
}
