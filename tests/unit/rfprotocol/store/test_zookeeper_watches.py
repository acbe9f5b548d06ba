"""Which watches are set with ZooKeeper, and in which order with what is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rfprotocol.store.zookeeper_watches import Watched, Watches

RECORD, CHILDREN = Watched.RECORD, Watched.CHILDREN
BOTH = (RECORD, CHILDREN)


class Conversation:
    """What was sent to ZooKeeper and what was told, in order, since it was last looked at."""

    def __init__(self) -> None:
        self._heard: list[str] = []
        self.watches = Watches(lambda watched, path: self._heard.append(f"{watched.value} {path}"))

    def watch(self, path: str, name: str = "changed") -> Callable[[], None]:
        return self.watches.add(path, lambda child: self._heard.append(f"{name} {child}".rstrip()))

    def since(self) -> list[str]:
        heard, self._heard = self._heard, []
        return heard


@pytest.fixture
def talk() -> Conversation:
    """A watch on /a with one child, all set."""
    talk = Conversation()
    talk.watch("/a")
    talk.watches.listed("/a", ["one"])
    talk.since()
    return talk


def test_a_new_watch_is_set_on_the_record_its_children_and_then_on_each_child() -> None:
    talk = Conversation()
    talk.watch("/a")
    assert talk.since() == ["record /a", "children /a"]
    talk.watches.listed("/a", ["one"])
    assert talk.since() == ["record /a/one", "changed"]


def test_a_record_without_children_is_silent(talk: Conversation) -> None:
    talk.watch("/b")
    talk.since()
    talk.watches.listed("/b", [])
    assert talk.since() == []


def test_the_root_can_be_watched() -> None:
    talk = Conversation()
    talk.watch("/")
    talk.watches.listed("/", ["one"])
    talk.since()
    talk.watches.fired("/one", RECORD)
    assert talk.since() == ["record /one", "changed one"]


def test_a_used_up_watch_is_set_again_before_anybody_is_told(talk: Conversation) -> None:
    talk.watches.fired("/a", RECORD)
    assert talk.since() == ["record /a", "changed"]
    talk.watches.fired("/a/one", RECORD)
    assert talk.since() == ["record /a/one", "changed one"]


def test_a_child_that_is_gone_is_not_all_that_may_have_changed(talk: Conversation) -> None:
    talk.watches.fired("/a/one", *BOTH)
    assert talk.since() == ["changed"]


def test_a_child_that_comes_is_watched_and_told_of_twice(talk: Conversation) -> None:
    talk.watches.fired("/a", CHILDREN)
    assert talk.since() == ["children /a", "changed"]
    talk.watches.listed("/a", ["one", "two"])
    assert talk.since() == ["record /a/two", "changed"]


def test_a_child_that_goes_is_not_watched_any_more_until_it_comes_back(talk: Conversation) -> None:
    talk.watches.fired("/a/one", *BOTH)
    assert talk.since() == ["changed"]
    talk.watches.fired("/a", CHILDREN)
    talk.watches.listed("/a", [])
    talk.since()
    talk.watches.fired("/a", CHILDREN)
    talk.watches.listed("/a", ["one"])
    assert talk.since() == ["children /a", "changed", "record /a/one", "changed"]


def test_a_child_that_went_and_came_back_between_two_lists_is_watched_again(talk: Conversation) -> None:
    talk.watches.fired("/a/one", *BOTH)
    talk.watches.fired("/a", CHILDREN)
    talk.since()
    talk.watches.listed("/a", ["one"])
    assert talk.since() == ["record /a/one", "changed"]


def test_children_of_a_missing_record_are_watched_once_it_is_created() -> None:
    talk = Conversation()
    talk.watch("/a")
    talk.watches.not_listed("/a")
    talk.since()
    talk.watches.fired("/a", *BOTH)
    assert talk.since() == ["record /a", "children /a", "changed"]


def test_news_of_the_creation_may_overtake_the_refusal_to_watch_children() -> None:
    talk = Conversation()
    talk.watch("/a")
    talk.since()
    talk.watches.fired("/a", *BOTH)
    assert "children /a" in talk.since()
    talk.watches.not_listed("/a")


def test_a_deleted_record_is_watched_for_its_return(talk: Conversation) -> None:
    talk.watches.fired("/a", *BOTH)
    assert talk.since() == ["record /a", "children /a", "changed"]


def test_after_a_reconnection_everything_is_set_again_and_everybody_is_told(talk: Conversation) -> None:
    talk.watch("/b", "b changed")
    talk.since()
    talk.watches.connected()
    assert talk.since() == ["record /a", "children /a", "changed", "record /b", "children /b", "b changed"]
    talk.watches.listed("/a", ["one"])
    assert talk.since() == ["record /a/one", "changed"]


def test_two_watches_of_one_path_share_what_is_set_and_are_both_told(talk: Conversation) -> None:
    talk.watch("/a", "second")
    assert talk.since() == []
    talk.watches.fired("/a", RECORD)
    assert talk.since() == ["record /a", "changed", "second"]


def test_a_record_watched_itself_and_with_its_parent_tells_both(talk: Conversation) -> None:
    talk.watch("/a/one", "child")
    talk.since()
    talk.watches.fired("/a/one", RECORD)
    assert sorted(talk.since()) == ["changed one", "child", "record /a/one"]


def test_an_ended_watch_is_neither_told_nor_set_again() -> None:
    talk = Conversation()
    end = talk.watch("/a")
    talk.watches.listed("/a", ["one"])
    talk.since()
    end()
    end()
    talk.watches.fired("/a", RECORD)
    talk.watches.fired("/a/one", RECORD)
    talk.watches.listed("/a", ["one", "two"])
    talk.watches.connected()
    assert talk.since() == []


def test_a_path_watched_anew_after_an_end_learns_its_children_again() -> None:
    talk = Conversation()
    end = talk.watch("/a")
    talk.watches.listed("/a", ["one"])
    end()
    talk.since()
    talk.watch("/a")
    assert talk.since() == ["record /a", "children /a"]
    talk.watches.fired("/a/one", RECORD)
    talk.watches.listed("/a", ["one"])
    assert "record /a/one" in talk.since()
