FROM scratch
MAINTAINER Somebody <some@body.example>
ENV A=1 B="two words" C=three\ words
ENV LEGACY all of this
LABEL one=1 "two words"='quoted' joined=a\
b
EXPOSE 80 443/tcp 53/udp 8000-8002
VOLUME /data /more
VOLUME ["/json"]
USER 1000:1000
WORKDIR /srv
STOPSIGNAL SIGQUIT
HEALTHCHECK NONE
SHELL ["/bin/ash", "-c"]
ENTRYPOINT run it
CMD ["with", "this"]
ONBUILD RUN build it
