// The playhead of a time profile follows its film; a click on the profile takes the film there.
for (const target of document.querySelectorAll(".target")) {
  const film = target.querySelector("video"), profile = target.querySelector("svg.profile");
  if (!film || !profile) continue;
  const left = +profile.dataset.left, right = +profile.dataset.right, end = +profile.dataset.end;
  const playhead = profile.querySelector(".playhead");
  const show = () => {
    const x = left + Math.min(film.currentTime / end, 1) * (right - left);
    playhead.setAttribute("x1", x); playhead.setAttribute("x2", x);
    if (!film.paused) requestAnimationFrame(show);
  };
  for (const event of ["play", "seeked", "timeupdate"]) film.addEventListener(event, show);
  profile.addEventListener("click", (click) => {
    const box = profile.getBoundingClientRect();
    const x = (click.clientX - box.left) / box.width * profile.viewBox.baseVal.width;
    film.currentTime = Math.min(Math.max((x - left) / (right - left), 0), 1) * end;
  });
}
