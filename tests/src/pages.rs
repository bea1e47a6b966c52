//! The pages of the docs, their blocks and their links.

use crate::programs::root;
use std::path::{Path, PathBuf};

/// A fenced block of a page.
#[derive(Debug, Clone)]
pub struct Block {
    /// The words after the fence.
    pub words: Vec<String>,
    /// Where it stands, for people: page and line.
    pub at: String,
    /// What it holds.
    pub content: String,
}

impl Block {
    /// Whether its words begin with these.
    pub fn is(&self, words: &[&str]) -> bool {
        self.words.len() >= words.len()
            && self.words.iter().zip(words).all(|(own, word)| own == word)
    }
}

/// Every page: the README, and all below `docs`.
pub fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    collect(&root().join("docs"), &mut pages);
    pages
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder can be listed").path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

/// A page's text.
pub fn text(page: &Path) -> String {
    std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// A page's path from the root.
pub fn short(page: &Path) -> String {
    page.strip_prefix(root())
        .unwrap_or(page)
        .display()
        .to_string()
}

/// The fenced blocks of a page, in order.
pub fn blocks(page: &Path) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text(page).lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(words), None) => {
                let words = words.split_whitespace().map(str::to_owned).collect();
                let at = format!("{}:{}", short(page), number + 1);
                open = Some(Block {
                    words,
                    at,
                    content: String::new(),
                });
            }
            (None, Some(block)) => {
                block.content.push_str(line);
                block.content.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a block does not end", short(page));
    found
}

/// The links of a page that lead to a place in this house: the line, and what is written.
pub fn links(page: &Path) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut within = false;
    for (number, line) in text(page).lines().enumerate() {
        if line.trim_start().starts_with("```") {
            within = !within;
        }
        let targets = line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'));
        for (target, _) in targets.filter(|_| !within) {
            if !target.contains("://") {
                found.push((number + 1, target.to_owned()));
            }
        }
    }
    found
}

/// The names that a page's headings can be linked by, as GitHub makes them.
pub fn anchors(page: &Path) -> Vec<String> {
    let mut within = false;
    let text = text(page);
    let headings = text.lines().filter(|line| {
        if line.trim_start().starts_with("```") {
            within = !within;
        }
        !within && line.starts_with('#')
    });
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}
