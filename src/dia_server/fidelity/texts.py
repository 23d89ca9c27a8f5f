"""The texts of the comparison: 50 built-in dialogues, or the lines of a file."""

from pathlib import Path

from dia_server.errors import Invalid
from dia_server.text.speakers import TAG

MAX_FILE = 1 << 20
"""Maximum bytes of a file of texts."""


def read_texts(file: Path) -> list[str]:
    """Return the lines of `file` that are not empty, each with a speaker tag before it if it has none.

    Raises Invalid if the file is no UTF-8, exceeds MAX_FILE bytes or has no text, and OSError.
    """
    if file.stat().st_size > MAX_FILE:
        raise Invalid(f"--texts: {file} exceeds {MAX_FILE} bytes", param="texts", limit=MAX_FILE)
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise Invalid(f"--texts: {file} is no UTF-8: {error.reason}", param="texts") from None
    texts = [line if TAG.match(line) else f"[S1] {line}" for line in lines if line]
    if not texts:
        raise Invalid(f"--texts: {file} has no text", param="texts")
    return texts


TEXTS = (
    "[S1] Did you hear that? [S2] Hear what? [S1] The door. Somebody is coming up the stairs.",
    "[S1] I made soup for everyone. [S2] You cooked? (laughs) This I have to see. [S1] Very funny.",
    "[S1] How long until the train leaves? [S2] About twelve minutes, if it is on time for once.",
    "[S1] (sighs) I left my keys at the office again. [S2] Then we wait on the porch like last week.",
    "[S1] The garden looks different this year. [S2] We planted tomatoes where the roses used to be.",
    "[S1] Tell me the truth. [S2] I broke the lamp, and I hid the pieces. [S1] (gasps) My lamp!",
    "[S1] What did the doctor say? [S2] Rest, tea, and no arguments with my brother. (coughs)",
    "[S1] We could drive through the mountains. [S2] In January? [S1] The road is open, I checked.",
    "[S1] Everybody said the bridge would never hold. [S2] And yet here we are, on the other side.",
    "[S1] (clears throat) Thank you all for coming. [S2] Speak up, we can hardly hear you back here.",
    "[S1] Is this seat taken? [S2] No, please, sit down. I was only saving it for my coat.",
    "[S1] You are up early. [S2] The birds woke me, and then the neighbor started his motorcycle.",
    "[S1] I have never seen the sea. [S2] Never? Pack a bag, we are leaving tonight. (laughs)",
    "[S1] Can you read the small letters? [S2] It says to keep away from heat. [S1] Too late.",
    "[S1] Which one of you ate the cake? [S2] It was the dog. [S1] We do not have a dog. (chuckle)",
    "[S1] The museum closes at five. [S2] Then we skip the coins and go straight to the dinosaurs.",
    "[S1] My grandfather built this boat by hand. [S2] It shows. Nobody makes them like this anymore.",
    "[S1] Something smells wonderful. [S2] Bread. It needs ten more minutes, so do not touch it.",
    "[S1] They raised the rent again. [S2] (groans) How much this time? [S1] Enough to make me move.",
    "[S1] Do you believe in ghosts? [S2] Only in old houses, and only after midnight.",
    "[S1] The computer froze while I was saving. [S2] (sighs) Please tell me that you have a copy.",
    "[S1] Turn left at the church. [S2] There are two churches. [S1] The one with the green roof.",
    "[S1] You never told me you could sing. [S2] I cannot. (laughs) I was very brave and very loud.",
    "[S1] Winter came early this year. [S2] The lake froze in one night. I walked across it yesterday.",
    "[S1] Why are you whispering? [S2] Because the baby is finally asleep, and I want to keep it so.",
    "[S1] I got the job! [S2] (screams) I knew it! When do you start? [S1] On the first of March.",
    "[S1] The recipe asks for three eggs. [S2] We have two, and a large amount of confidence.",
    "[S1] Have you fed the cat? [S2] Twice. She lies to whoever comes home first.",
    "[S1] It is only a scratch. [S2] It is a hole in the door, Martin. [S1] A small hole. (chuckle)",
    "[S1] Nobody answers the phone. [S2] Try the number on the back of the card, the handwritten one.",
    "[S1] What would you do with a million dollars? [S2] Sleep until noon, every day, for a year.",
    "[S1] The concert was canceled. [S2] (gasps) But we drove four hours! [S1] I know. I am sorry.",
    "[S1] Your letter arrived this morning. [S2] I mailed it in the spring. That is some journey.",
    "[S1] Be careful, the floor is wet. [S2] (laughs) You might have told me before I fell.",
    "[S1] My watch stopped at noon. [S2] So did mine. That is either magic or a bad battery.",
    "[S1] Shall we take the stairs? [S2] Nine floors? With this suitcase? (sighs) Fine, after you.",
    "[S1] The river rises a little every hour. [S2] Then we move the boxes upstairs before it is dark.",
    "[S1] I dreamed about our old school. [S2] Were we late again? [S1] We were always late.",
    "[S1] Who painted this? [S2] A girl from our street. She was only nine when she did it.",
    "[S1] You owe me a coffee. [S2] I owe you three, but who is counting? (chuckle)",
    "[S1] (inhales) Smell that. Pine and snow. [S2] And smoke. Somebody up there has a warm stove.",
    "[S1] Our flight is delayed by two hours. [S2] Good. I have not finished my book, or my lunch.",
    "[S1] He forgot our anniversary. [S2] Again? [S1] He remembered the football game, though. (sighs)",
    "[S1] There is a moose in the parking lot. [S2] A what? [S1] A moose. It is looking at your car.",
    "[S1] Do not open the box. [S2] I already opened the box. [S1] (gasps) And what was inside?",
    "[S1] The old theater is for sale. [S2] We should buy it, and show nothing but black and white films.",
    "[S1] Keep your voice down. [S2] I am keeping it down! (coughs) This is how I always talk.",
    "[S1] Is the water warm? [S2] It is perfect. (laughs) Jump in, and do not think about it.",
    "[S1] She walked all the way from the coast. [S2] That is two hundred miles. With a cello?",
    "[S1] Good night, everyone. [S2] Good night. Leave the light on in the hall, please. (mumbles)",
)
"""Short English dialogues, a third of them with a non-verbal sound."""
