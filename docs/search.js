/* Find options as they are typed: a leading dash would mean "pages without this word". */
for (const event of ["input", "keyup"]) {
  document.addEventListener(event, ({ target }) => {
    if (target instanceof HTMLInputElement && target.matches(".md-search__input")) {
      const words = target.value.replace(/(^|\s)-+/g, "$1");
      if (words !== target.value) target.value = words;
    }
  }, true);
}
