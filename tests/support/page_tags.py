"""The tags of a page, as a browser would read them."""

from html.parser import HTMLParser


class Tags(HTMLParser):
    """What a browser would fetch or run, and whether every tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.fetched, self.names, self.handlers = [], [], set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
