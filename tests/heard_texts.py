"""Texts of several kinds, each with its words as a person would read them aloud, to measure what is heard."""

from tests.hearing import SENTENCES

HEARD: dict[str, list[tuple[str, str]]] = {
    "plain": [(sentence, sentence) for sentence in SENTENCES[:10]],
    "markdown": [
        (
            "# The morning\n\nThe **birch** canoe slid on the *smooth* planks.",
            "The morning. The birch canoe slid on the smooth planks.",
        ),
        ("- Glue the sheet\n- to the `dark blue` background", "Glue the sheet. To the dark blue background."),
        (
            "> It's easy to tell the ~~depth~~ depth of a well.",
            "It's easy to tell the depth depth of a well.",
        ),
        ("***These days*** a chicken leg is a __rare__ dish.", "These days a chicken leg is a rare dish."),
        ("| rice | often |\n|---|---|\n| served | in bowls |", "Rice, often. Served in bowls."),
        (
            "*She smiles.* The juice of lemons makes <b>fine</b> punch.",
            "She smiles. The juice of lemons makes fine punch.",
        ),
    ],
    "URLs": [
        (
            "Read the [box was thrown](https://example.com/a?b=c) beside the truck.",
            "Read the box was thrown beside the truck.",
        ),
        (
            "Go to https://www.example.com/hogs/fed?corn=1&x=2 for the corn.",
            "Go to example dot com for the corn.",
        ),
        (
            "Four hours of work: https://garden.org/steady_work/index.html",
            "Four hours of work: garden dot org",
        ),
        (
            "Send a letter to anna@garden.org and wait for the sun.",
            "Send a letter to anna at garden dot org and wait for the sun.",
        ),
    ],
    "mixed case": [
        ("tHe BoY wAs ThErE wHeN tHe SuN rOsE.", "The boy was there when the sun rose."),
        ("A rOd Is UsEd To CaTcH pInK sAlMoN.", "A rod is used to catch pink salmon."),
        ("kIcK tHe BaLl StRaIgHt AnD fOlLoW tHrOuGh.", "Kick the ball straight and follow through."),
        ("hElP tHe WoMaN gEt BaCk To HeR fEeT.", "Help the woman get back to her feet."),
    ],
    "numbers": [
        (
            "The large bag costs $1,299.50 and the small one 45%.",
            "The large bag costs one thousand two hundred ninety-nine dollars and fifty cents and "
            "the small one forty-five percent.",
        ),
        (
            "We met at 3:30 PM on Jan 15, 2024.",
            "We met at three thirty PM on January fifteenth, twenty twenty-four.",
        ),
        ("The 21st truck weighed 70 kg.", "The twenty-first truck weighed seventy kilograms."),
        ("Dr. Smith walked 5 km in 1986.", "Doctor Smith walked five kilometers in nineteen eighty-six."),
        (
            "There were 10-20 men, e.g. Henry VIII.",
            "There were ten to twenty men, for example Henry the Eighth.",
        ),
        ("It took 2 1/2 hours at 20°C.", "It took two and one half hours at twenty degrees Celsius."),
    ],
}
"""By category, texts as they are written, and their words."""
