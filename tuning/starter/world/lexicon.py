"""The small world the starter knows: tables of true facts about countries, things and words.

Knows facts only; how they are said is `corpus`'s and `instructions`' business. Each table is
text with one entity a line, so that a person can read, check and extend it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


def listed(text: str) -> list[str]:
    """The words of a table that is only a list."""
    return text.split()


COUNTRIES = """
France Paris Europe French
Germany Berlin Europe German
Italy Rome Europe Italian
Spain Madrid Europe Spanish
Portugal Lisbon Europe Portuguese
Poland Warsaw Europe Polish
Greece Athens Europe Greek
Sweden Stockholm Europe Swedish
Norway Oslo Europe Norwegian
Denmark Copenhagen Europe Danish
Finland Helsinki Europe Finnish
Iceland Reykjavik Europe Icelandic
Austria Vienna Europe German
Hungary Budapest Europe Hungarian
Romania Bucharest Europe Romanian
Bulgaria Sofia Europe Bulgarian
Croatia Zagreb Europe Croatian
Serbia Belgrade Europe Serbian
Ukraine Kyiv Europe Ukrainian
Russia Moscow Europe Russian
Albania Tirana Europe Albanian
Slovakia Bratislava Europe Slovak
Slovenia Ljubljana Europe Slovene
Estonia Tallinn Europe Estonian
Latvia Riga Europe Latvian
Lithuania Vilnius Europe Lithuanian
Japan Tokyo Asia Japanese
China Beijing Asia Chinese
Mongolia Ulaanbaatar Asia Mongolian
Vietnam Hanoi Asia Vietnamese
Thailand Bangkok Asia Thai
Cambodia Phnom_Penh Asia Khmer
Laos Vientiane Asia Lao
Nepal Kathmandu Asia Nepali
Bangladesh Dhaka Asia Bengali
India New_Delhi Asia Hindi
Pakistan Islamabad Asia Urdu
Indonesia Jakarta Asia Indonesian
Turkey Ankara Asia Turkish
Iran Tehran Asia Persian
Iraq Baghdad Asia Arabic
Syria Damascus Asia Arabic
Jordan Amman Asia Arabic
Lebanon Beirut Asia Arabic
Israel Jerusalem Asia Hebrew
Georgia Tbilisi Asia Georgian
Armenia Yerevan Asia Armenian
Uzbekistan Tashkent Asia Uzbek
Egypt Cairo Africa Arabic
Morocco Rabat Africa Arabic
Algeria Algiers Africa Arabic
Tunisia Tunis Africa Arabic
Libya Tripoli Africa Arabic
Sudan Khartoum Africa Arabic
Ethiopia Addis_Ababa Africa Amharic
Kenya Nairobi Africa Swahili
Tanzania Dodoma Africa Swahili
Somalia Mogadishu Africa Somali
Senegal Dakar Africa French
Mali Bamako Africa French
Angola Luanda Africa Portuguese
Mozambique Maputo Africa Portuguese
Ghana Accra Africa English
Nigeria Abuja Africa English
Zambia Lusaka Africa English
Canada Ottawa North_America English
Mexico Mexico_City North_America Spanish
Cuba Havana North_America Spanish
Guatemala Guatemala_City North_America Spanish
Honduras Tegucigalpa North_America Spanish
Nicaragua Managua North_America Spanish
Jamaica Kingston North_America English
Brazil Brasilia South_America Portuguese
Argentina Buenos_Aires South_America Spanish
Chile Santiago South_America Spanish
Peru Lima South_America Spanish
Colombia Bogota South_America Spanish
Venezuela Caracas South_America Spanish
Ecuador Quito South_America Spanish
Uruguay Montevideo South_America Spanish
Paraguay Asuncion South_America Spanish
Australia Canberra Oceania English
Fiji Suva Oceania English
"""

ELEMENTS = """
hydrogen H 1
helium He 2
lithium Li 3
beryllium Be 4
boron B 5
carbon C 6
nitrogen N 7
oxygen O 8
fluorine F 9
neon Ne 10
sodium Na 11
magnesium Mg 12
aluminium Al 13
silicon Si 14
phosphorus P 15
sulfur S 16
chlorine Cl 17
argon Ar 18
potassium K 19
calcium Ca 20
titanium Ti 22
chromium Cr 24
manganese Mn 25
iron Fe 26
cobalt Co 27
nickel Ni 28
copper Cu 29
zinc Zn 30
arsenic As 33
bromine Br 35
krypton Kr 36
silver Ag 47
tin Sn 50
iodine I 53
xenon Xe 54
tungsten W 74
platinum Pt 78
gold Au 79
mercury Hg 80
lead Pb 82
radon Rn 86
uranium U 92
"""

# animal, class, young (or -), where it lives
ANIMALS = """
dog mammal puppy house
cat mammal kitten house
cow mammal calf farm
horse mammal foal farm
sheep mammal lamb farm
pig mammal piglet farm
goat mammal kid farm
rabbit mammal bunny field
mouse mammal pup field
lion mammal cub savanna
tiger mammal cub jungle
bear mammal cub forest
wolf mammal pup forest
fox mammal cub forest
deer mammal fawn forest
elephant mammal calf savanna
giraffe mammal calf savanna
zebra mammal foal savanna
monkey mammal infant jungle
kangaroo mammal joey grassland
camel mammal calf desert
whale mammal calf ocean
dolphin mammal calf ocean
seal mammal pup ocean
bat mammal pup cave
squirrel mammal kit forest
hedgehog mammal hoglet garden
chicken bird chick farm
duck bird duckling pond
goose bird gosling farm
swan bird cygnet lake
eagle bird eaglet mountains
owl bird owlet forest
penguin bird chick coast
parrot bird chick jungle
robin bird chick garden
sparrow bird chick garden
pigeon bird squab city
salmon fish fry river
trout fish fry river
shark fish pup ocean
tuna fish fry ocean
carp fish fry pond
cod fish fry ocean
snake reptile snakelet desert
lizard reptile hatchling desert
crocodile reptile hatchling river
turtle reptile hatchling ocean
frog amphibian tadpole pond
toad amphibian tadpole garden
newt amphibian eft pond
bee insect larva hive
ant insect larva nest
butterfly insect caterpillar meadow
beetle insect grub forest
mosquito insect larva swamp
fly insect maggot house
"""

# job: what the person does; where the person works
JOBS = """
baker: bakes bread; bakery
teacher: teaches children; school
doctor: helps sick people; hospital
nurse: cares for patients; hospital
farmer: grows food; farm
pilot: flies planes; airport
sailor: sails ships; harbour
driver: drives a bus; city
cook: cooks meals; kitchen
waiter: serves food; restaurant
gardener: plants flowers; garden
painter: paints pictures; studio
singer: sings songs; theatre
actor: plays roles; theatre
writer: writes books; library
librarian: lends books; library
dentist: repairs teeth; clinic
butcher: sells meat; butchery
tailor: sews clothes; workshop
carpenter: builds furniture; workshop
plumber: repairs pipes; house
builder: builds houses; street
miner: digs coal; mine
fisherman: catches fish; harbour
judge: judges cases; court
lawyer: defends people; court
scientist: studies nature; laboratory
chemist: mixes chemicals; laboratory
mechanic: repairs cars; garage
firefighter: puts out fires; station
soldier: guards the country; camp
clown: makes people laugh; circus
barber: cuts hair; shop
florist: sells flowers; shop
shepherd: looks after sheep; meadow
vet: helps sick animals; clinic
"""

COLOURS_OF = """
grass green
snow white
milk white
salt white
cotton white
coal black
soot black
ink black
tar black
blood red
a_ruby red
lava red
rust brown
chocolate brown
soil brown
coffee brown
tree_bark brown
honey golden
butter yellow
a_sunflower yellow
corn yellow
the_sky blue
a_sapphire blue
an_emerald green
moss green
lavender purple
a_violet purple
ash grey
fog grey
concrete grey
a_flamingo pink
a_pumpkin orange
"""

CATEGORIES = """
fruit: apple banana pear plum cherry grape lemon peach orange mango melon strawberry
vegetable: carrot potato onion tomato cabbage pepper bean pea spinach cucumber radish leek
tool: hammer saw drill wrench screwdriver shovel rake axe pliers chisel
piece of clothing: shirt coat hat sock skirt dress scarf glove jacket sweater
piece of furniture: table chair bed sofa desk shelf wardrobe bench stool cupboard
vehicle: car bus train bicycle truck tram plane ship tractor motorcycle
musical instrument: piano violin guitar flute drum trumpet harp cello clarinet organ
colour: red blue green yellow black white brown purple pink grey
sport: football tennis hockey golf swimming boxing rugby cricket skiing basketball
drink: water milk tea coffee juice lemonade cocoa cider
body part: hand foot arm leg nose ear mouth eye knee shoulder
flower: rose tulip daisy lily sunflower violet orchid poppy
metal: iron gold silver copper tin zinc lead nickel
mammal: dog cat cow horse lion tiger bear wolf elephant monkey
bird: duck goose swan eagle owl penguin parrot robin sparrow pigeon
fish: salmon trout shark tuna carp cod
insect: bee ant butterfly beetle mosquito fly
country: France Germany Italy Spain Japan China Egypt Kenya Brazil Peru
shape: circle square triangle rectangle oval star
month: January February March April May June July August September October November December
"""

OPPOSITES = """
hot cold
big small
tall short
fast slow
old young
good bad
happy sad
rich poor
strong weak
light dark
high low
wet dry
clean dirty
full empty
open closed
early late
hard soft
lost found
loud quiet
thick thin
wide narrow
deep shallow
sharp blunt
smooth rough
sweet bitter
brave cowardly
kind cruel
polite rude
true false
right wrong
safe dangerous
easy difficult
cheap expensive
near far
first last
up down
in out
on off
day night
summer winter
morning evening
north south
east west
love hate
laugh cry
win lose
buy sell
push pull
give take
start finish
arrive leave
remember forget
build destroy
ask answer
friend enemy
king queen
boy girl
man woman
brother sister
mother father
uncle aunt
war peace
life death
success failure
victory defeat
beginning end
noisy silent
ugly beautiful
lazy busy
proud humble
guilty innocent
ancient modern
public private
"""

PLURALS = """
mouse mice
goose geese
foot feet
tooth teeth
man men
woman women
child children
ox oxen
person people
leaf leaves
wolf wolves
knife knives
wife wives
shelf shelves
loaf loaves
thief thieves
half halves
calf calves
city cities
baby babies
lady ladies
story stories
berry berries
party parties
puppy puppies
fly flies
country countries
family families
box boxes
fox foxes
bus buses
glass glasses
dish dishes
brush brushes
church churches
watch watches
bench benches
peach peaches
dress dresses
potato potatoes
tomato tomatoes
hero heroes
dog dogs
cat cats
book books
tree trees
house houses
car cars
table tables
chair chairs
apple apples
flower flowers
river rivers
school schools
teacher teachers
doctor doctors
bird birds
horse horses
lamp lamps
ship ships
king kings
song songs
letter letters
window windows
door doors
garden gardens
bridge bridges
hammer hammers
shirt shirts
clock clocks
cup cups
spoon spoons
ball balls
boat boats
"""

PAST = """
go went
see saw
eat ate
drink drank
run ran
swim swam
sing sang
write wrote
speak spoke
take took
give gave
make made
come came
find found
buy bought
bring brought
think thought
teach taught
catch caught
sleep slept
keep kept
feel felt
leave left
lose lost
win won
sit sat
stand stood
hear heard
tell told
sell sold
hold held
fly flew
grow grew
know knew
throw threw
draw drew
drive drove
ride rode
break broke
choose chose
wear wore
fall fell
begin began
build built
send sent
spend spent
pay paid
say said
meet met
walk walked
talk talked
play played
jump jumped
work worked
cook cooked
clean cleaned
open opened
close closed
help helped
look looked
ask asked
answer answered
laugh laughed
dance danced
paint painted
wash washed
watch watched
visit visited
carry carried
cry cried
study studied
stop stopped
plan planned
climb climbed
listen listened
live lived
love loved
move moved
smile smiled
travel travelled
wait waited
call called
count counted
push pushed
pull pulled
"""

COMPARATIVES = """
big bigger biggest
small smaller smallest
tall taller tallest
fast faster fastest
slow slower slowest
old older oldest
young younger youngest
rich richer richest
poor poorer poorest
strong stronger strongest
weak weaker weakest
light lighter lightest
dark darker darkest
high higher highest
low lower lowest
clean cleaner cleanest
long longer longest
short shorter shortest
hard harder hardest
soft softer softest
loud louder loudest
thick thicker thickest
thin thinner thinnest
wide wider widest
deep deeper deepest
sharp sharper sharpest
sweet sweeter sweetest
kind kinder kindest
brave braver bravest
cheap cheaper cheapest
hot hotter hottest
cold colder coldest
wet wetter wettest
happy happier happiest
busy busier busiest
heavy heavier heaviest
easy easier easiest
good better best
bad worse worst
warm warmer warmest
cool cooler coolest
nice nicer nicest
"""

NAMES = listed(
    """
Tom Anna Ben Clara David Emma Frank Grace Henry Ida Jack Kate Leo Maria Nora Oscar Paula Peter
Rosa Sam Tina Victor Wendy Alice Bruno Carol Daniel Ella Felix Greta Hugo Iris Jonas Karin Lucas
Mona Nina Otto Pia Ralf Sara Theo Ute Vera Will Zoe
"""
)

# name, then "the" + place with its preposition
PLACES = listed(
    """
garden kitchen school park forest beach market library station farm harbour castle bridge river
lake mountain village hospital museum bakery church tower island field cave valley theatre
meadow
"""
)

CONTAINERS = listed(
    """
box basket drawer bag cupboard bucket pocket suitcase jar chest
"""
)

OBJECTS = listed(
    """
ball book key lamp cup hat letter clock coin ring doll kite drum map rope stone feather candle
mirror blanket umbrella bell brush ladder bottle scarf camera whistle pencil spoon
"""
)

FOODS = listed(
    """
cake bread soup apple banana cheese pizza salad rice pie honey pancake sandwich cookie pear plum
carrot potato egg melon
"""
)

POSITIVE = listed(
    """
wonderful great lovely delicious beautiful excellent perfect fantastic brilliant charming
pleasant delightful superb enjoyable
"""
)

NEGATIVE = listed(
    """
terrible awful horrible disgusting boring dreadful disappointing nasty annoying useless
unpleasant miserable poor ugly
"""
)

REVIEWED = listed(
    """
film book song meal hotel concert cake holiday party game soup trip garden room museum play
lesson coffee story restaurant
"""
)

DAYS = listed(
    """
Monday Tuesday Wednesday Thursday Friday Saturday Sunday
"""
)


@dataclass(frozen=True)
class Country:
    """A country with its capital, continent and most spoken language."""

    name: str
    capital: str
    continent: str
    language: str


@dataclass(frozen=True)
class Element:
    """A chemical element with its symbol and atomic number."""

    name: str
    symbol: str
    number: int


@dataclass(frozen=True)
class Animal:
    """An animal with its class, the word for its young, and where it lives."""

    name: str
    kind: str
    young: str
    place: str


@dataclass(frozen=True)
class Job:
    """A job: what the person does and where."""

    name: str
    task: str
    place: str


def _rows(table: str) -> list[list[str]]:
    return [
        [cell.replace("_", " ") for cell in line.split()] for line in table.strip().splitlines()
    ]


@lru_cache
def countries() -> tuple[Country, ...]:
    """All countries."""
    return tuple(Country(*row) for row in _rows(COUNTRIES))


@lru_cache
def elements() -> tuple[Element, ...]:
    """All elements, by atomic number."""
    return tuple(Element(name, symbol, int(n)) for name, symbol, n in _rows(ELEMENTS))


@lru_cache
def animals() -> tuple[Animal, ...]:
    """All animals."""
    return tuple(Animal(*row) for row in _rows(ANIMALS))


@lru_cache
def jobs() -> tuple[Job, ...]:
    """All jobs."""
    found = []
    for line in JOBS.strip().splitlines():
        name, rest = line.split(": ")
        task, place = rest.split("; ")
        found.append(Job(name, task, place))
    return tuple(found)


@lru_cache
def categories() -> dict[str, tuple[str, ...]]:
    """Category noun (singular) to its members."""
    pairs = (line.split(": ") for line in CATEGORIES.strip().splitlines())
    return {noun: tuple(members.split()) for noun, members in pairs}


@lru_cache
def colours_of() -> dict[str, str]:
    """Thing to its colour."""
    return dict(_rows(COLOURS_OF))


@lru_cache
def opposites() -> dict[str, str]:
    """Word to its opposite; one direction a pair, as in the table."""
    return dict(_rows(OPPOSITES))


@lru_cache
def plurals() -> dict[str, str]:
    """Singular to plural."""
    return dict(_rows(PLURALS))


@lru_cache
def past_tenses() -> dict[str, str]:
    """Verb to its past tense."""
    return dict(_rows(PAST))


@lru_cache
def comparatives() -> dict[str, tuple[str, str]]:
    """Adjective to (comparative, superlative)."""
    return {a: (b, c) for a, b, c in _rows(COMPARATIVES)}


def article(noun: str) -> str:
    """The noun with "a" or "an" before it."""
    vowel = noun[0].lower() in "aeiou" and not noun.startswith(("uni", "use"))
    return f"{'an' if vowel else 'a'} {noun}"


def located(place: str) -> str:
    """The place with its preposition: "on the farm", "in the forest"."""
    on = place in {"farm", "savanna", "coast", "grassland", "island", "field", "meadow"}
    return f"{'on' if on else 'in'} the {place}"


def plural_noun(noun: str) -> str:
    """Plural of a category noun such as "piece of furniture"."""
    head, space, rest = noun.partition(" of ")
    if head in {"fish", "clothing"}:
        plural = head
    elif head.endswith("y"):
        plural = head[:-1] + "ies"
    else:
        plural = head + "s"
    return plural + space + rest


def joined(items: list[str] | tuple[str, ...]) -> str:
    """Items as a person lists them: "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
