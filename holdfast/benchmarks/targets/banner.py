"""Questions about banners: headline, price, call to action and layout, of drawn advertisements or of your own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from holdfast.benchmarks.question import Draw, TargetQuestion
from holdfast.config.targets import Banner
from holdfast.data.world import COLORS, generator

SIZE = (128, 64)
HEADLINES = ("sale", "summer", "winter", "shoes", "books", "coffee", "garden", "travel")
PRICES = ("5", "9", "12", "19", "25", "39", "49", "60", "75", "99")
ACTIONS = ("buy", "order", "join", "visit", "try", "shop")
PLACES = ("left", "middle", "right")
BUTTON = (38, 15)
"""Width and height in pixels."""


class Ad(NamedTuple):
    """All that is on a banner."""

    headline: str
    price: str
    action: str
    place: str
    color: str


ANSWERS = {"headline": HEADLINES, "price": PRICES, "action": ACTIONS, "place": PLACES, "color": tuple(COLORS)}
QUESTIONS = {
    "headline": "What is the headline?",
    "price": "What is the price in dollars?",
    "action": "What does the button say?",
    "place": "Is the button left, middle or right?",
    "color": "What color is the button?",
}


def ask(target: Banner, draw: Draw) -> TargetQuestion:
    """A banner, and one of the five questions; questions take turns, and so do the answers of each."""
    kind = tuple(ANSWERS)[draw.turn("kind", len(ANSWERS))]
    rng = generator("banner", draw.seed, draw.split, draw.number)
    drawn = {name: answers[rng.integers(len(answers))] for name, answers in ANSWERS.items()}
    drawn[kind] = ANSWERS[kind][draw.turn(kind, len(ANSWERS[kind]), draw.number // len(ANSWERS))]
    ad = Ad(**drawn)
    reasoning = f"The banner says {ad.headline} for ${ad.price}; a {ad.color} button, {ad.place}, says {ad.action}."
    image = picture(ad, target.difficulty, rng)
    return TargetQuestion(
        (image,), QUESTIONS[kind], drawn[kind], reasoning, kind, "number" if kind == "price" else "exact"
    )


def chance(_target: Banner) -> float:
    """Answers to a question are equally frequent."""
    return sum(1 / len(answers) for answers in ANSWERS.values()) / len(ANSWERS)


def picture(ad: Ad, difficulty: float, rng: np.random.Generator) -> Image.Image:
    """Headline above, price beside it, the button below; difficulty fades the writing and adds noise."""
    ground = rng.integers(150, 246, 3)
    pixels = ground + rng.normal(0, 2 + 20 * difficulty, (SIZE[1], SIZE[0], 3))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    ink = tuple(int(part) for part in ground * 0.7 * difficulty)
    shift = [int(part) for part in rng.integers(0, 4, 4)]
    _write(image, ad.headline.upper(), (3 + shift[0], 4 + shift[1]), ink, 2)
    _write(image, f"${ad.price}", (104 - shift[2], 6 + shift[3]), ink, 1)
    _button(image, ad, rng)
    return image


def _button(image: Image.Image, ad: Ad, rng: np.random.Generator) -> None:
    width, height = BUTTON
    x = 3 + PLACES.index(ad.place) * (SIZE[0] - width - 6) // 2
    y = SIZE[1] - height - 4 - int(rng.integers(0, 8))
    box = (x, y, x + width, y + height)
    ImageDraw.Draw(image).rounded_rectangle(box, 4, fill=COLORS[ad.color], outline=(30, 30, 30))
    _write(image, ad.action.upper(), (x + 5, y + 2), (0, 0, 0) if ad.color == "yellow" else (255, 255, 255), 1)


def _write(image: Image.Image, text: str, place: tuple[int, int], ink: tuple[int, ...], scale: int) -> None:
    """In Pillow's own bitmap letters of 6×11 pixels, which are the same on every machine."""
    font = ImageFont.load_default_imagefont()
    mask = Image.new("L", (6 * len(text), 11))
    ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    mask = mask.resize((mask.width * scale, mask.height * scale), Image.Resampling.NEAREST)
    image.paste(ink, place, mask)
