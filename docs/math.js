/* Lower subscripts where no installed font has the table by which browsers place them. */
const sample = document.createElement("p");
sample.innerHTML = "<math><msub><mi>x</mi><mi>x</mi></msub></math>";
document.body.append(sample);
const [base, subscript] = [...sample.querySelectorAll("mi")].map((box) => box.getBoundingClientRect());
document.documentElement.classList.toggle("no-math-font", subscript.bottom - base.bottom < 2);
sample.remove();
