//! Tests of the example `from_go`. Each section runs and asserts its results. Other tests check the
//! printed pages.

use std::collections::HashSet;
use support::watchdog;

use crate::sections::{self, CHAPTERS, Chapter, choose, listing, page};

fn run(chapter: &Chapter) {
    let _watchdog = watchdog();
    for section in chapter.sections {
        println!("{}", section.code.name);
        (section.code.run)().unwrap();
    }
}

macro_rules! chapters {
    ($($chapter:ident)*) => {
        $(
            #[test]
            fn $chapter() {
                run(&sections::$chapter::CHAPTER);
            }
        )*

        #[test]
        fn no_chapter_is_left_out() {
            let names: Vec<_> = CHAPTERS.iter().map(|chapter| chapter.name).collect();
            assert_eq!(names, [$(stringify!($chapter)),*]);
        }
    };
}

chapters! { heartbeats timers loops draining goodtimer tickers stopping cancelling }

#[test]
fn every_page_has_four_parts_and_short_lines() {
    for (chapter, section) in choose(&[]).unwrap() {
        let page = page(chapter, section);
        for part in
            ["Go\n    ", "\nMeaning\n    ", "\nHere (examples/from_go/sections/", "\nOutput\n"]
        {
            assert!(page.contains(part), "no {part:?} in\n{page}");
        }
        assert!(!page.contains('\t'), "{page}");
        for line in page.lines() {
            assert!(line.chars().count() <= 100, "too long: {line}");
            assert_eq!(line.trim_end(), line);
        }
    }
}

#[test]
fn a_page_shows_the_code_that_runs() {
    let chosen = choose(&["try_read_c".into()]).unwrap();
    let page = page(chosen[0].0, chosen[0].1);
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text:?} in\n{page}"));
    // The page has the whole helper, and then the body of the section's function.
    assert!(at("\n    fn try_read(") < at("\n        timer.deadline()?;\n"));
    assert!(at("\n    }\n\n    let reactor = Reactor") < at("\n    let tries = "));
    assert!(!page.contains("fn try_read_c()") && !page.contains("Ok(())"));
}

#[test]
fn sections_and_chapters_are_chosen_by_name() {
    let names = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        choose(&names)
            .map(|chosen| chosen.iter().map(|(_, section)| section.code.name).collect::<Vec<_>>())
    };
    assert_eq!(names(&["tick", "after"]), Ok(vec!["after", "tick"]));
    assert_eq!(names(&["draining"]), Ok(vec!["drain_blocks", "drain_race", "one_batch"]));
    assert_eq!(names(&["after", "before"]), Err("before".into()));

    let all = names(&[]).unwrap();
    let chapters = CHAPTERS.iter().map(|chapter| chapter.name);
    let distinct: HashSet<&str> = all.iter().copied().chain(chapters.clone()).collect();
    assert_eq!(distinct.len(), all.len() + CHAPTERS.len(), "two items have the same name");
    let listing = listing(&choose(&[]).unwrap());
    assert_eq!(listing.lines().count(), all.len() + CHAPTERS.len());
    assert!(all.iter().copied().chain(chapters).all(|name| listing.contains(name)));
}
