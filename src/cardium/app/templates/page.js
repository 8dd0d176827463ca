// Comforts only: the page does all of its work without a script.
"use strict";
const form = document.querySelector("form[data-working]");
if (form) {
  form.addEventListener("submit", () => {
    document.getElementById("working").textContent = form.dataset.working;
    // After the browser has taken the form's values.
    setTimeout(() => { form.querySelector("button").disabled = true; }, 0);
  });
  // Back from an answer: the form can be sent again.
  addEventListener("pageshow", () => {
    form.querySelector("button").disabled = false;
    document.getElementById("working").textContent = "";
  });
  const files = document.getElementById("files");
  for (const [event, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    files.addEventListener(event, () => files.classList.toggle("over", over));
  }
}
const print = document.getElementById("print");
if (print) {
  print.hidden = false;
  print.addEventListener("click", () => window.print());
}
